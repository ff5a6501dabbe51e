import hashlib
import http.server
import json
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa
import pytest
from onnx import TensorProto, helper

import benchmarks.serving
from benchmarks.serving import alone, decoding, latency, open_loop, single, thousand
from benchmarks.serving.bars import Bar, less, ratio
from benchmarks.serving.bodies import bodies
from benchmarks.serving.memory import memory_mb
from benchmarks.serving.model import around
from benchmarks.serving.page import bars_table, put_into
from benchmarks.serving.process import Program, started, tree
from benchmarks.serving.records import FIELDS, draw
from benchmarks.serving.rounds import Cost, cost
from benchmarks.serving.wrk import Load, load_of
from nelbo.records import RecordDecoder
from nelbo.schema import Column, Schema

_RECORDS = draw(3, seed=7)
_LIMITS = {  # these programs are compared with elsewhere: what they measure may not change
    "codec_limit.py": "7e5e9e0122640031385072251999690181d944e49915c576fa9e9a7e3cd0b3ea",
    "ort_limit.py": "29a486437490d72ef2fbedc172925542ffac5da4e37bbc60e6e92deec1ba5435",
}


def cost_of(name: str, cpu_us: float) -> Cost:
    return Cost(name, cpu_us, cpu_us, cpu_us, rate=1.0, p50_ms=1.0, p99_ms=1.0, pss_mb=1.0, n_failed=0)


def sent_of(p99_ms: float) -> open_loop.Sent:
    return open_loop.Sent(10, 10, {200: 10}, 10, 0, 1.0, 0.1, p99_ms, p99_ms)


# --- records and bodies ---------------------------------------------------------------------------


def test_fresh_records_follow_the_law_of_the_others() -> None:
    one, other = draw(4000, seed=0), draw(4000, seed=1)
    assert not np.array_equal(one, other)
    assert one.std(axis=0) == pytest.approx(np.ones(30), rel=0.1)
    assert np.corrcoef(one.T) == pytest.approx(np.corrcoef(other.T), abs=0.1)


@pytest.mark.parametrize("form", ["objects", "columns"])
def test_json_bodies_are_what_the_service_reads(form: str) -> None:
    schema = Schema(columns=tuple(Column(name=name, role="field", kind="numeric") for name in FIELDS))
    batch = RecordDecoder(schema).json(bodies(_RECORDS)[form].data)
    assert np.array_equal(batch.numbers, _RECORDS)


def test_a_tensor_in_json_is_flat() -> None:
    tensor = json.loads(bodies(_RECORDS)["v2 JSON"].data)["inputs"][0]
    assert (tensor["shape"], tensor["datatype"]) == ([3, 30], "FP32")
    assert np.array_equal(np.reshape(tensor["data"], (3, 30)), _RECORDS)


def test_a_binary_tensor_stands_behind_its_header() -> None:
    body = bodies(_RECORDS)["v2 binary"]
    n = int(body.headers["Inference-Header-Content-Length"])
    tensor = json.loads(body.data[:n])["inputs"][0]
    assert tensor["parameters"]["binary_data_size"] == len(body.data) - n == 3 * 30 * 4
    assert np.frombuffer(body.data[n:], "<f4") == pytest.approx(_RECORDS.ravel(), rel=1e-6)


def test_lines_csv_and_arrow_hold_the_same_records() -> None:
    found = bodies(_RECORDS)
    lines = [list(json.loads(line).values()) for line in found["NDJSON"].data.splitlines()]
    head, *rows = found["CSV"].data.decode().splitlines()
    table = pa.ipc.open_stream(found["Arrow"].data).read_all()
    assert np.array_equal(lines, _RECORDS)
    assert head.split(",") == FIELDS
    assert np.array_equal([[float(cell) for cell in row.split(",")] for row in rows], _RECORDS)
    assert np.array_equal(np.column_stack(table.columns), _RECORDS)


def test_a_body_with_gaps_and_categories_is_read_by_both_decoders() -> None:
    schema = decoding.schema()
    sent = decoding.body(schema, 200)
    batch = RecordDecoder(schema).json(sent)
    assert (batch.numbers.shape, batch.codes.shape, batch.errors) == ((200, 20), (200, 10), ())
    assert 0 < np.isnan(batch.numbers).mean() < 0.1
    assert decoding.bare(schema).decode(sent)


# --- the graph of the peers -----------------------------------------------------------------------


def graph() -> onnx.ModelProto:
    """Contributions are the numbers, KL is 1 for two latents each."""
    inputs = [("numbers", TensorProto.DOUBLE, 2), ("codes", TensorProto.INT64, 0), ("hidden", TensorProto.BOOL, 2)]
    nodes = [
        helper.make_node("Cast", ["numbers"], ["shown"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["hidden"], ["gone"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["shown", "gone"], ["contributions"]),
        helper.make_node("Exp", ["gone"], ["kl"]),
    ]
    values = [helper.make_tensor_value_info(name, kind, ["n", width]) for name, kind, width in inputs]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("contributions", "kl")]
    made = helper.make_graph(nodes, "tiny", values, outputs)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_peers_get_one_input_and_the_sum_of_all_parts() -> None:
    session = ort.InferenceSession(around(graph()).SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=np.float32)
    assert session.run(["neg_elbo"], {"x": x})[0].tolist() == [5.0, 9.0, 13.0]


def test_the_nodes_of_the_graph_of_the_peers_are_the_bundles_own() -> None:
    own = list(graph().graph.node)
    nodes = list(around(graph()).graph.node)
    first = nodes.index(own[0])
    assert nodes[first : first + len(own)] == own


def test_a_graph_with_other_inputs_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a graph with the inputs numbers, codes and hidden, got x"):
        around(around(graph()))


@pytest.mark.parametrize("name", _LIMITS)
def test_the_programs_that_set_the_limits_are_as_they_came(name: str) -> None:
    path = Path(benchmarks.serving.__file__).parent / "limits" / name
    assert hashlib.sha256(path.read_bytes()).hexdigest() == _LIMITS[name]


# --- figures --------------------------------------------------------------------------------------


def test_wrk_speaks_json_in_one_of_its_lines() -> None:
    said = 'Running 1s test\n  2 threads\n{"n_requests": 7, "seconds": 2.0, "p50_ms": 1, "p99_ms": 2, "n_refused": 3, '
    assert load_of(said + '"n_broken": 4}\nRequests/sec: 3.5\n') == Load(7, 2.0, 1.0, 2.0, 3, 4)


def test_a_cost_is_the_median_of_the_rounds_that_were_answered() -> None:
    loads = [
        (cpu_s, 50.0, Load(n, 2.0, 1.0, 3.0, 1, 0)) for cpu_s, n in ((1.0, 1000), (3.0, 1000), (2.0, 1000), (9.0, 0))
    ]
    found = cost("x", loads)
    assert (found.cpu_us, found.cpu_low_us, found.cpu_high_us) == (2000.0, 1000.0, 3000.0)
    assert (found.rate, found.n_failed) == (500.0, 4)


@pytest.mark.parametrize(
    ("found", "at_most", "verdict"),
    [
        (2.0, True, "met"),
        (2.1, True, "short"),
        (2.0, False, "met"),
        (1.9, False, "short"),
        (None, True, "not measured"),
    ],
)
def test_a_verdict_says_whether_a_bar_is_met(found: float | None, at_most: bool, verdict: str) -> None:
    assert Bar("a figure", found, 2.0, at_most=at_most).verdict == verdict


def test_what_is_missing_makes_no_ratio() -> None:
    assert (ratio(6.0, 3.0), ratio(None, 3.0), ratio(6.0, None), ratio(6.0, -1.0)) == (2.0, None, None, None)
    assert (less(6.0, 2.0), less(None, 2.0)) == (4.0, None)


def test_a_decoder_that_leaves_half_of_the_work_is_not_the_cheapest() -> None:
    cases = [
        ("decode", "objects  typed, decode only", 1.0),
        ("decode", "objects  typed", 3.0),
        ("decode", "objects  untyped", 4.0),
        ("decode", "columns  typed", 2.0),
        ("encode", "objects  typed", 2.0),
    ]
    found = [{"kind": kind, "case": case, "cpu_us": us} for kind, case, us in cases]
    assert alone.cheapest(found, "decode", "objects") == ("objects  typed", 3.0)


def test_overhead_of_one_record_leaves_out_the_graph() -> None:
    costs = [
        cost_of("bare uvicorn, objects", 40.0),
        cost_of("nelbo, objects", 100.0),
        cost_of("MLServer, v2 JSON", 500.0),
    ]
    found = single.Found({1: 100.0, 16: 320.0}, {32: costs}, {}, {}, {})
    bars = {bar.what: bar.found for bar in single.bars(found)}
    # 100 − 320 / 16 = 80 of ours; 500 − 100 = 400 of theirs.
    assert bars["(CPU − `session.run` of 16 / 16) over bare uvicorn"] == 2.0
    assert bars["MLServer: CPU − `session.run`, over ours"] == 5.0
    assert bars["BentoML: CPU − `session.run`, over ours"] is None


@pytest.mark.parametrize(
    "answer",
    [
        {"results": [{"elbo": {"value": -62.5}}]},
        {"outputs": [{"name": "neg_elbo", "data": [62.5]}]},
        {"outputs": [{"name": "score", "data": [3.0]}, {"name": "elbo", "data": [-62.5]}]},
        {"scores": [62.5], "flags": [False]},
        [62.5],
    ],
)
def test_each_server_s_answer_is_about_the_same_number(answer: object) -> None:
    assert single.neg_elbo_of(json.dumps(answer).encode()) == 62.5


def test_parts_alone_are_held_against_the_whole() -> None:
    costs = [
        cost_of("bare uvicorn, objects", 500.0),
        cost_of("nelbo, objects, nothing explained", 8000.0),
        cost_of("nelbo, v2 binary", 2000.0),
        cost_of("MLServer, v2 JSON", 6000.0),
    ]
    found = thousand.Found(2000.0, ("decoder", 1400.0), ("encoder", 100.0), 9, 300.0, costs, {})
    bars = {bar.what: bar for bar in thousand.bars(found)}
    assert bars["objects: the sum of the parts alone over CPU"].found == 0.5  # (500 + 1400 + 2000 + 100) / 8000
    binary = bars["v2 binary: MLServer's CPU over ours"]
    assert (binary.found, "its v2 JSON stands for it" in binary.note) == (3.0, True)


def test_latency_is_held_against_the_floor_round_by_round() -> None:
    floor = [sent_of(1.0), sent_of(2.0), sent_of(1.0)]
    ours = [sent_of(2.0), sent_of(10.0), sent_of(3.0)]
    found = latency.Found(1000.0, {"evenly": floor, "at random": floor}, {"evenly": ours, "at random": ours})
    (bar,) = latency.bars(found)
    assert (bar.found, bar.note) == (3.0, "rounds 2.00–5.00")


def test_a_table_goes_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "speed.md"
    page.write_text("a\n<!-- bars, written by make bench-serving -->\nold\n<!-- end of bars -->\nb\n")
    table = bars_table({"Part": [Bar("a figure", None, 2.0, at_most=True, note="why")]})
    put_into(page, table)
    put_into(page, table)
    before, *rows, after = page.read_text().splitlines()
    assert (before, after) == ("a", "b")
    assert rows[3:-1] == ["| Part | a figure | ≤ 2 |  | not measured | why |"]


def test_a_page_without_marks_is_refused(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text("a\n")
    with pytest.raises(ValueError, match="did not find both"):
        put_into(tmp_path / "speed.md", "table")


# --- processes and the load -----------------------------------------------------------------------


def test_a_server_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    program = Program(["sh", "-c", "sh -c 'sleep 60 & wait' & wait"], port=1)
    with started(program, tmp_path / "log") as server:
        deadline = time.monotonic() + 10
        while len(pids := tree(server.process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(pids) >= 3
        assert server.pss_mb() > 0
    time.sleep(0.1)
    assert [pid for pid in pids if _is_alive(pid)] == []


def smaps(*mappings: tuple[str, int, int, int]) -> str:
    """Of file ("" for none), Rss, Pss and Anonymous, KiB, of each mapping."""
    lines = (
        f"55b5aca15000-55b5aca18000 r--p 00000000 fe:00 {7 if file else 0}    {file}\n"
        f"Rss: {rss} kB\nPss: {pss} kB\nAnonymous: {own} kB\nVmFlags: rd mr\n"
        for file, rss, pss, own in mappings
    )
    return "".join(lines)


def test_memory_counts_a_shared_file_once_and_what_others_share_of_it_in_full() -> None:
    parent = smaps(
        ("/lib/a.so", 1000, 10, 0), ("/lib/a.so", 100, 100, 100), ("", 500, 500, 500), ("[heap]", 50, 50, 50)
    )
    child = smaps(("/lib/a.so", 1000, 10, 0), ("/lib/b.so", 200, 200, 0), ("", 300, 150, 300))
    # Files 1000 + 200; written pages of a.so 100; anonymous 500 + 50 + 150.
    assert memory_mb([parent, child]) == pytest.approx(2.0 * 1000 * 1024 / 1e6)


def _is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_even_moments_keep_their_distance_and_random_ones_their_rate() -> None:
    assert open_loop.moments(4.0, 1.0) == [0.0, 0.25, 0.5, 0.75]
    at_random = open_loop.moments(1000.0, 10.0, np.random.default_rng(0))
    assert len(at_random) == 10_000
    assert at_random[-1] == pytest.approx(10.0, rel=0.05)  # five standard errors


def test_a_request_has_its_path_its_query_and_its_length() -> None:
    request = open_loop.request_of("http://127.0.0.1:80/a/b?c=d", {"Content-Type": "text/csv"}, b"xyz")
    head, body = request.split(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /a/b?c=d HTTP/1.1"
    assert {b"Host: 127.0.0.1:80", b"Content-Length: 3", b"Content-Type: text/csv"} <= set(head.split(b"\r\n"))
    assert body == b"xyz"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200 if self.path == "/good" else 503)
        if self.path == "/closing":
            self.send_header("connection", "close")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the name is http.server's
        pass


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(("path", "statuses", "n_good"), [("/good", {200: 20}, 20), ("/closing", {503: 20}, 0)])
def test_every_request_of_an_open_loop_is_accounted_for(
    url: str, tmp_path: Path, path: str, statuses: dict[int, int], n_good: int
) -> None:
    (tmp_path / "body").write_bytes(b"x" * 300_000)  # more than a socket takes at once
    found = open_loop.sent(
        url + path, tmp_path / "body", {"Content-Type": "text/plain"}, 100.0, 0.2, n_connections=4, may_wait=True
    )
    assert (found.n_due, found.n_sent, found.statuses, found.n_broken) == (20, 20, statuses, 0)
    assert found.n_good == n_good
