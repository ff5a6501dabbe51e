import json
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from nelbo.store import Store
from service.keys import new_key, write_keys
from tests.bundles import odd_record, write_tiny_bundle
from tests.hostile import PROBED
from tests.service import process as process_module
from tests.service.conftest import Scrape, Start
from tests.service.process import HEAD, ask, environment, raw
from tests.signing import KEY, signed, trust_file

# Run by the interpreter at its start: a folder with a file `hangs` in it is listed when that is gone.
HANGING = """
import time
from pathlib import Path

listed = Path.iterdir

def iterdir(self):
    while (self / "hangs").exists():
        (self / "hung").touch()
        time.sleep(0.05)
    return listed(self)

Path.iterdir = iterdir
"""
HEAVY = ["torch", "scipy", "pyarrow", "typer", "rich", "sklearn", "pandas", "onnx"]


def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment(**settings), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_process_answers_and_leaves_with_0_when_it_is_told_to(stop: signal.Signals, start: Start) -> None:
    process, port = start()
    assert ask(port, "/v1/models/pumps/score", {"records": [odd_record()]})["results"][0]["flagged"] is True
    process.send_signal(stop)
    _, log = process.communicate(timeout=30)
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert (process.returncode, events) == (0, ["model loaded", "stopping", "stopped"])


def test_a_line_is_answered_over_a_socket_before_the_next_one_is_sent(start: Start) -> None:
    _, port = start()
    ask(port, "/v1/models/pumps/score", {"records": [odd_record()]})
    line = json.dumps(odd_record()).encode() + b"\n"
    head = b"POST /v1/models/pumps/score?explain=none HTTP/1.1\r\nhost: pumps\r\ncontent-type: application/x-ndjson\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection, connection.makefile("rb") as answer:
        connection.sendall(head + b"expect: 100-continue\r\ntransfer-encoding: chunked\r\n\r\n")
        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert (answer.readline(), answer.readline()) == (b"\r\n", b"HTTP/1.1 200 OK\r\n")
        while answer.readline() != b"\r\n":
            pass
        for index in range(3):
            connection.sendall(b"%x\r\n%b\r\n" % (len(line), line))
            chunk = answer.read(int(answer.readline(), 16) + 2)
            assert json.loads(chunk)["index"] == index
        connection.sendall(b"0\r\n\r\n")
        assert answer.readline() == b"0\r\n"


def test_the_process_holds_nothing_that_only_training_needs(start: Start) -> None:
    process, port = start()
    ask(port, "/v1/models/pumps/score", {"records": [odd_record()]})
    mapped = Path(f"/proc/{process.pid}/maps").read_text()
    assert "onnxruntime" in mapped
    assert not any(f"/site-packages/{name}/" in mapped for name in ("torch", "pyarrow", "sklearn", "pandas"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the heaps of glibc")
def test_threads_loads_and_csv_bodies_all_take_from_one_heap(tmp_path: Path, start: Start) -> None:
    """Of several heaps each keeps what the most at once has taken of it; for hours memory would seem to grow."""
    for version in ("20260101T000000Z-aaaa", "20260201T000000Z-bbbb"):
        write_tiny_bundle(tmp_path, version=version)
    process, port = start(MODELS=tmp_path)
    records = {"records": [odd_record()] * 500}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: ask(port, "/v1/models/pumps/score?explain=all", records), range(8)))
    Store(tmp_path).promote("pumps", "20260101T000000Z-aaaa")
    pumps = f"http://127.0.0.1:{port}/v1/models/pumps"
    assert httpx.post(f"{pumps}/reload", timeout=30).json()["changed"] is True
    csv = "serial,pressure,valve,in/out [l/s],rpm,heated\n" + "P-1,5.0,open,20.0,1500,true\n" * 5_000
    assert httpx.post(f"{pumps}/score", content=csv, headers={"content-type": "text/csv"}, timeout=30).is_success
    assert further_heaps(process.pid) == []


def further_heaps(pid: int) -> list[str]:
    """The mappings that are a further heap of glibc, which reserves 64 MiB from a multiple of it, or of mimalloc."""
    rows = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    parts = [([int(end, 16) for end in row[0].split("-")], row[1]) for row in rows if len(row) == 5]  # of no file
    of_glibc = [begin for (begin, _), rights in parts if begin % (64 << 20) == 0 and rights == "rw-p"]
    whole = {end for (_, end), rights in parts if rights == "---p"}
    reserved = [begin for (begin, end), _ in parts if end - begin >= 1 << 30]
    return [hex(begin) for begin in of_glibc if begin + (64 << 20) in whole] + [hex(begin) for begin in reserved]


def test_importing_the_service_imports_nothing_heavy() -> None:
    code = "import sys, service.app, service.__main__; print([name for name in sys.argv[1:] if name in sys.modules])"
    found = run("-c", code, *HEAVY)
    assert (found.stdout, found.stderr) == ("[]\n", "")


def test_wrong_settings_are_told_in_plain_words_and_end_with_2() -> None:
    found = run("-m", "service", PORT="http", MAX_RECORDS=0)
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        "NELBO_PORT: expected a whole number from 0 to 65535, got 'http'",
        "NELBO_MAX_RECORDS: expected a whole number, at least 1, got '0'",
    ]


def test_a_port_in_use_is_told_in_a_sentence_and_ends_with_2(models: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = run("-m", "service", MODELS=models, PORT=port)
    assert (found.returncode, found.stderr) == (
        2,
        f"cannot listen on 127.0.0.1 port {port}: Address already in use; NELBO_HOST and NELBO_PORT change it\n",
    )


def test_a_host_that_is_not_ours_is_told_in_a_sentence(models: Path) -> None:
    found = run("-m", "service", MODELS=models, HOST="192.0.2.1", PORT=0)
    assert found.returncode == 2
    assert found.stderr.startswith("cannot listen on 192.0.2.1 port 0: ")


@pytest.mark.parametrize("host", ["http://x", "999.1.1.1", "a..b", "x" * 300])
def test_a_host_that_is_no_address_is_told_in_a_sentence(host: str, models: Path) -> None:
    found = run("-m", "service", MODELS=models, HOST=host, PORT=0)
    assert (found.returncode, found.stderr) == (
        2,
        f"cannot listen on {host[:80]} port 0: there is no such address; NELBO_HOST and NELBO_PORT change it\n",
    )


def test_a_body_that_is_too_long_is_refused_before_it_is_sent(start: Start) -> None:
    _, port = start()
    found = raw(port, HEAD + b"content-length: 99000000000\r\n\r\n")
    assert found.startswith(b"HTTP/1.1 413 ")
    assert b'"detail":"expected a body of at most 16777216 bytes, got 99000000000"' in found


def test_a_chunked_body_is_cut_off_at_the_limit(start: Start) -> None:
    _, port = start(MAX_BODY_BYTES=100)
    found = raw(
        port, HEAD + b"transfer-encoding: chunked\r\n\r\n", b"40\r\n" + b" " * 64 + b"\r\n", b"40\r\n" + b" " * 64
    )
    assert found.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in found.lower()


def test_bytes_that_are_no_http_get_a_400(start: Start) -> None:
    _, port = start()
    assert raw(port, b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert ask(port, "/v1/models/pumps/score", {"records": [odd_record()]})["results"][0]["flagged"] is True


def test_the_service_starts_without_a_model_and_says_that_it_is_not_ready(start: Start, tmp_path: Path) -> None:
    _, port = start(MODELS=tmp_path)
    found = httpx.get(f"http://127.0.0.1:{port}/healthz/ready")
    assert found.status_code == 503
    assert httpx.get(f"http://127.0.0.1:{port}/healthz/live").text == "alive\n"


def test_a_strange_host_or_path_is_no_failure_of_ours(start: Start) -> None:
    _, port = start()
    ask(port, "/v1/models/pumps")
    end = b"connection: close\r\n\r\n"
    assert raw(port, b"GET /healthz/live?a HTTP/1.1\r\nhost: [::\r\n" + end).startswith(b"HTTP/1.1 200 ")
    assert raw(port, b"GET /v1/models/%ff%00 HTTP/1.1\r\nhost: x\r\n" + end).startswith(b"HTTP/1.1 404 ")
    assert raw(port, b"GET /v1/\xff HTTP/1.1\r\nhost: x\r\n" + end)[9:10] == b"4"


def test_an_address_that_others_reach_needs_keys_and_a_new_one_works_without_a_restart(
    start: Start, tmp_path: Path
) -> None:
    process, port = start(HOST="0.0.0.0", KEYS=tmp_path / "keys.json")  # noqa: S104  # the point
    assert process.stderr is not None
    warning = next(line for line in map(json.loads, process.stderr) if line["level"] == "warning")
    assert "nelbo keys new" in warning["next_step"]
    url = f"http://127.0.0.1:{port}"
    text, key = new_key(["read"], "", datetime.now(UTC), None)
    headers = {"authorization": f"Bearer {text}"}
    assert httpx.get(f"{url}/healthz/live").status_code == 200
    assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 401
    for keys, expected in (([key], 200), ([], 401)):
        write_keys(tmp_path / "keys.json", keys)
        until = time.monotonic() + 30
        while httpx.get(f"{url}/v1/models", headers=headers).status_code != expected:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_a_wrong_file_of_keys_is_told_in_full_and_ends_with_2(models: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"format": 2, "keys": [7]}')
    found = run("-m", "service", MODELS=models, PORT=0, KEYS=tmp_path / "keys.json")
    assert found.returncode == 2
    assert found.stderr.splitlines() == [
        "NELBO_KEYS: the file of keys: format: expected 1, got 2",
        "NELBO_KEYS: the file of keys: key 0: "
        "expected an object with id, name, sha256, scopes, created, expires, got a number",
    ]


def test_a_stranger_is_answered_and_cut_off_while_his_body_still_comes(start: Start, tmp_path: Path) -> None:
    _, port = start(KEYS=tmp_path / "keys.json")
    for framing in (b"content-length: 99000000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n40\r\n" + b" " * 64):
        found = raw(port, HEAD + framing)  # reads to the end, so the connection was closed
        assert found.startswith(b"HTTP/1.1 401 ")
        assert b"www-authenticate: Bearer" in found
        assert b'"detail":"expected a key' in found


def test_a_stranger_with_a_short_body_may_ask_again_on_his_connection(start: Start, tmp_path: Path) -> None:
    _, port = start(KEYS=tmp_path / "keys.json")
    request = HEAD + b"content-length: 2\r\n\r\n{}"
    found = raw(port, request, request, b"GET /healthz/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert (found.count(b"HTTP/1.1 401 "), found.count(b"HTTP/1.1 200 ")) == (2, 1)


def test_counters_are_exact_while_many_ask_at_once(start: Start) -> None:
    _, port = start()
    ask(port, "/v1/models/pumps/score", {"records": []})
    short = {"records": [odd_record(), odd_record(pressure="x")]}
    long = {"records": [odd_record()] * 800}
    with ThreadPoolExecutor(8) as threads, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        path = "/v1/models/pumps/score?explain=none"
        answers = threads.map(lambda i: client.post(path, json=short if i % 20 else long), range(200))
        assert {answer.status_code for answer in answers} == {200}
        found = Scrape(client.get("/metrics").text)
    outcomes = [found.value("nelbo_records_scored_total", model="pumps", outcome=o) for o in ("flagged", "invalid")]
    assert outcomes == [190 + 10 * 800, 190]
    route = "/v1/models/{name}/score"
    answered = found.value("nelbo_http_requests_total", route=route, method="POST", status="200")
    assert (answered, found.value("nelbo_batch_records_count")) == (201, 201)


def test_a_store_that_hangs_touches_neither_scoring_nor_the_stop(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, code = tmp_path / "models", tmp_path / "code"
    write_tiny_bundle(store)
    code.mkdir()
    (code / "sitecustomize.py").write_text(HANGING)
    monkeypatch.setattr(process_module, "ROOT", f"{code}{os.pathsep}{process_module.ROOT}")
    process, port = start(MODELS=store, RELOAD_S=0.05)
    body = {"records": [odd_record()]}
    ask(port, "/v1/models/pumps/score", body)
    (store / "hangs").touch()
    for _ in range(300):
        if (store / "hung").exists():
            break
        time.sleep(0.1)
    assert (store / "hung").exists()
    assert ask(port, "/v1/models/pumps/score", body)["results"][0]["flagged"] is True
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 0


# --- whose bundles are served ------------------------------------------------------------------------


def test_a_trust_file_that_will_not_do_ends_the_start_with_a_line_a_problem(models: Path, tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_text('{"keys": {"x": 1}, "minimum": 1}')
    done = run("-m", "service", MODELS=models, PORT=0, TRUST=tmp_path / "trust.json")
    assert (done.returncode, done.stdout) == (2, "")
    file = f"NELBO_TRUST: {tmp_path}/trust.json"
    assert done.stderr.splitlines() == [
        f"{file}: keys.x: expected an object with owner and public_key, got 1",
        f"{file}: minimum: expected no name but format, keys, minimum_versions, got another",
    ]


def test_the_process_serves_what_a_pinned_key_has_signed_and_nothing_else(tmp_path: Path, start: Start) -> None:
    signed(write_tiny_bundle(tmp_path / "models", "pumps"))
    write_tiny_bundle(tmp_path / "models", "fans")
    _, port = start(MODELS=tmp_path / "models", TRUST=trust_file(tmp_path, KEY))
    assert ask(port, "/v1/models/pumps/score", {"records": [odd_record()]})["results"][0]["flagged"] is True
    ready = httpx.get(f"http://127.0.0.1:{port}/healthz/ready", timeout=10)
    assert ready.status_code == 503
    assert "fans" in ready.json()["detail"]
    assert "manifest.sig is missing; only signed bundles are read here" in ready.json()["detail"]


def test_a_graph_that_would_take_all_memory_harms_no_other_model(tmp_path: Path, start: Start) -> None:
    """Named before the good one, so that the process that was forked at the start is the one that suffers."""
    PROBED["gigabytes for many records"].make(write_tiny_bundle(tmp_path, "fans"))
    write_tiny_bundle(tmp_path, "pumps")
    _, port = start(MODELS=tmp_path)
    assert ask(port, "/v1/models/pumps/score", {"records": [odd_record()]})["results"][0]["flagged"] is True
    ready = httpx.get(f"http://127.0.0.1:{port}/healthz/ready", timeout=10)
    assert (ready.status_code, "score.onnx: the probe could not run it" in ready.json()["detail"]) == (503, True)


def test_a_start_by_somebody_who_ignores_the_end_of_children_loads_its_models(models: Path) -> None:
    code = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, sys.executable, "-m", "service"]
    env = environment(MODELS=models, PORT=0, RELOAD_S=0)
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = json.loads(process.stderr.readline())["port"]
        assert ask(port, "/v1/models/pumps")["model"]["name"] == "pumps"
        process.terminate()
