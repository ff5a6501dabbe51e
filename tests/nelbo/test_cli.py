import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, requires
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import beta, false_discovery_control

from nelbo import cli
from nelbo.errors import NelboError
from nelbo.signature import key_id_of, read_key
from nelbo.store import Store
from tests.bundles import VERSION, normal_records, odd_record, write_tiny_bundle
from tests.commands import exit_code
from tests.hostile import hostile_bundle
from tests.signing import KEY, OWNER, signed, trust_file

Run = Callable[..., tuple[int, str, str]]
N_NORMAL = 30


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_bundle(folder)
    return folder


@pytest.fixture
def run(models: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Runs a command in this process: its exit code, its stdout, its stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = exit_code(monkeypatch, *arguments)
        captured = capfdbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return run


def ndjson(path: Path, records: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def table(folder: Path, kind: str = "ndjson", **extra: Any) -> Path:
    """A file of normal pumps and two odd ones, with further columns if wanted."""
    records = [*normal_records(N_NORMAL, seed=6), odd_record(), odd_record(valve="ajar")]
    for name, values in extra.items():
        for record, value in zip(records, values, strict=True):
            record[name] = value
    return write_table(folder, kind, records)


def write_table(folder: Path, kind: str, records: list[dict[str, Any]]) -> Path:
    path = folder / f"pumps.{kind}"
    if kind == "ndjson":
        return ndjson(path, records)
    columns = list(dict.fromkeys(name for record in records for name in record))
    if kind == "parquet":
        pq.write_table(pa.table({name: [record.get(name) for record in records] for name in columns}), path)
        return path
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, columns)
        rows.writeheader()
        rows.writerows(records)
    return path


# --- help and usage ----------------------------------------------------------------------------------


def test_nelbo_alone_shows_its_commands(run: Run) -> None:
    for arguments, expected in (([], 2), (["--help"], 0)):
        code, out, err = run(*arguments)
        assert code == expected
        assert [
            name
            for name in ("schema", "fit", "calibrate", "sign", "verify", "score", "evaluate", "serve")
            if name in out + err
        ]


@pytest.mark.parametrize(
    "command", ["schema", "fit", "calibrate", "sign", "verify", "score", "evaluate", "drift", "serve"]
)
def test_every_command_has_help_for_each_of_its_options(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    options = [line for line in out.splitlines() if line.lstrip("│ *").startswith("--")]
    assert options
    for line in options:
        assert len(line.strip("│ ").split("  ")) > 1, line


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["score"],
        ["score", "pumps", "t.csv", "--rate", "abc"],
        ["verify", "--nosuch"],
        ["evaluate", "a", "b"],
    ],
)
def test_wrong_usage_exits_with_2_and_no_traceback(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert "Error" in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["verify", "fans"], "nelbo: no model 'fans' in {models}; there: pumps"),
        (["score", "pumps", "none.csv"], "nelbo: none.csv: cannot be read: No such file or directory"),
        (["score", "pumps", "none.xls"], "nelbo: none.xls: expected a file that ends in"),
        (["drift", "pumps", "none.csv"], "nelbo: none.csv: cannot be read: No such file or directory"),
        (["score", "pumps@1", "none.csv"], "nelbo: model 'pumps' in {models} has no version '1'; there: " + VERSION),
    ],
)
def test_wrong_input_is_one_sentence_and_exits_with_2(
    run: Run, models: Path, arguments: list[str], sentence: str
) -> None:
    code, out, err = run(*arguments, "--models", models)
    assert (code, out) == (2, "")
    assert err.startswith(sentence.format(models=models))
    assert len(err.splitlines()) == 1


def test_command_runs_from_a_shell(models: Path) -> None:
    nelbo = Path(sys.executable).with_name("nelbo")
    done = subprocess.run([nelbo, "verify", "pumps", "--models", models], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"pumps@{VERSION}: 6 files and 4 golden records as exported\n")


# --- verify ------------------------------------------------------------------------------------------


def test_verify_prints_json_for_programs(run: Run, models: Path) -> None:
    code, out, err = run("verify", "pumps", "--models", models, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert list(found)[:5] == ["bundle", "ok", "model", "version", "digest"]
    assert (found["ok"], found["model"], found["version"]) == (True, "pumps", VERSION)


def test_verify_of_a_damaged_bundle_is_a_finding(run: Run, models: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "pumps" / VERSION, tmp_path / "bundle")
    (folder / "score.onnx").write_bytes(b"")
    detail = (
        f"bundle 'pumps@{VERSION}': score.onnx does not match its digest in the manifest; it was changed after export"
    )
    assert run("verify", folder) == (1, "", f"nelbo: {detail}\n")
    code, out, err = run("verify", folder, "--json")
    assert (code, err, json.loads(out)) == (1, "", {"bundle": str(folder), "ok": False, "detail": detail})


# --- promote and rollback -----------------------------------------------------------------------------


def two_versions(root: Path, **options: Any) -> Path:
    """A store of pumps with the versions 1, which is live, and 2."""
    write_tiny_bundle(root, version="1")
    Store(root).promote("pumps", "1")
    write_tiny_bundle(root, version="2", seed=1, **options)
    return root


def test_promote_and_rollback_say_what_is_live_and_how_to_go_back(run: Run, tmp_path: Path) -> None:
    models = ("--models", two_versions(tmp_path))
    assert run("promote", "pumps", "2", *models) == (0, "pumps@2 is live; nelbo rollback pumps goes back to 1\n", "")
    assert run("promote", "pumps", "2", *models)[1].startswith("pumps@2 was live already")
    code, out, err = run("rollback", "pumps", *models, "--json")
    expected = {"ok": True, "name": "pumps", "version": "1", "previous": "2", "changed": True, "removed": []}
    assert (code, json.loads(out), err) == (0, expected, "")


def test_models_are_where_the_variable_says_and_an_option_goes_before_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NELBO_MODELS", str(two_versions(tmp_path)))
    assert run("promote", "pumps", "2")[0] == 0
    code, _, err = run("promote", "pumps", "1", "--models", tmp_path / "none")
    assert (code, err) == (2, f"nelbo: {tmp_path / 'none'} is not there\n")


def test_promote_removes_old_versions_where_it_is_told_how_many_to_keep(run: Run, tmp_path: Path) -> None:
    models = two_versions(tmp_path)
    write_tiny_bundle(models, version="0")
    code, out, _ = run("promote", "pumps", "2", "--models", models, "--keep", 1)
    assert (code, out.splitlines()[1]) == (0, "removed: 0")
    assert Store(models).versions("pumps") == ["1", "2"]


def test_promote_of_another_schema_is_a_finding_and_can_be_forced(run: Run, tmp_path: Path) -> None:
    models = two_versions(tmp_path, unit="bar")
    code, out, err = run("promote", "pumps", "2", "--models", models, "--json")
    found = json.loads(out)
    assert (code, found["ok"], err) == (1, False, "")
    assert found["changes"] == [{"column": "pressure", "before": "a number", "after": "a number in bar"}]
    assert run("promote", "pumps", "2", "--models", models, "--force")[0] == 0


def test_promote_of_a_damaged_version_is_a_finding_and_leaves_the_alias(run: Run, tmp_path: Path) -> None:
    models = two_versions(tmp_path)
    (models / "pumps" / "2" / "score.onnx").write_bytes(b"")
    code, out, err = run("promote", "pumps", "2", "--models", models)
    assert (code, out) == (1, "")
    assert "score.onnx does not match its digest" in err
    assert Store(models).aliases("pumps") == {"live": "1"}


def test_rollback_where_nothing_was_live_before_is_refused(run: Run, tmp_path: Path) -> None:
    code, _, err = run("rollback", "pumps", "--models", two_versions(tmp_path))
    assert (code, "has no previous version to go back to" in err) == (2, True)


def test_verify_checks_signature_and_table_and_says_where_the_bundle_comes_from(run: Run, tmp_path: Path) -> None:
    folder, trust = signed(write_tiny_bundle(tmp_path)), trust_file(tmp_path, KEY)
    code, out, err = run("verify", folder, "--trust", trust)
    assert (code, err) == (0, "")
    assert out.splitlines()[1] == f"who:  signed by {OWNER}, key {key_id_of(KEY.public_key())}"
    other = table(tmp_path)
    code, out, err = run("verify", folder, "--trust", trust, "--data", other)
    assert (code, out) == (1, "")
    assert err.startswith(f"nelbo: bundle 'pumps@{VERSION}' was fitted on no named table, and {other} has the SHA-256 ")


@pytest.mark.parametrize("command", ["verify", "score", "drift"])
def test_command_that_is_told_whom_to_trust_reads_no_unsigned_bundle(run: Run, tmp_path: Path, command: str) -> None:
    folder, trust = write_tiny_bundle(tmp_path), trust_file(tmp_path, KEY)
    tables = [] if command == "verify" else [table(tmp_path)]
    code, out, err = run(command, folder, *tables, "--trust", trust)
    assert (code, out) == (1 if command == "verify" else 2, "")
    assert err == f"nelbo: bundle {folder}: manifest.sig is missing; only signed bundles are read here\n"


def test_verify_says_what_is_wrong_with_a_file_of_pinned_keys(run: Run, models: Path, tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_text('{"format": 2}')
    code, out, err = run("verify", "pumps", "--models", models, "--trust", tmp_path / "trust.json")
    assert (code, out) == (2, "")
    assert [line.removeprefix(f"nelbo: {tmp_path}/trust.json: ") for line in err.splitlines()] == [
        "format: expected 1, got 2",
        "keys: expected an object with one pinned key or more, each by its id, got nothing",
    ]


@pytest.mark.parametrize("name", ["terminal codes in a name", "gigabytes from few bytes"])
def test_verify_of_a_hostile_bundle_is_a_finding_of_one_printable_line(run: Run, tmp_path: Path, name: str) -> None:
    code, out, err = run("verify", hostile_bundle(tmp_path, name))
    assert (code, out) == (1, "")
    assert err.removesuffix("\n").isprintable()


# --- sign --------------------------------------------------------------------------------------------


def test_key_is_made_and_what_is_printed_pins_it(run: Run, tmp_path: Path) -> None:
    folder, key, trust = write_tiny_bundle(tmp_path), tmp_path / "key.pem", tmp_path / "trust.json"
    code, out, _ = run("sign", "--new-key", key, "--owner", "Ann")
    trust.write_text(out)
    assert code == 0
    code, out, _ = run("sign", folder, "--key", key, "--json")
    assert (code, json.loads(out)) == (0, {"bundle": str(folder), "key_id": key_id_of(read_key(key).public_key())})
    code, out, _ = run("verify", folder, "--trust", trust, "--json")
    assert (code, json.loads(out)["signature"]["owner"]) == (0, "Ann")


@pytest.mark.parametrize("arguments", [[], ["pumps"], ["--key", "k"], ["pumps", "--new-key", "k"]])
def test_sign_says_what_it_expects(run: Run, arguments: list[str]) -> None:
    expected = "nelbo: expected BUNDLE and --key FILE to sign, or --new-key FILE alone to make a key\n"
    assert run("sign", *arguments) == (2, "", expected)


# --- score -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
def test_score_writes_a_result_a_record_to_stdout(run: Run, models: Path, tmp_path: Path, kind: str) -> None:
    code, out, err = run("score", "pumps", table(tmp_path, kind), "--models", models)
    results = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [result["index"] for result in results] == list(range(N_NORMAL + 2))
    assert [result["flagged"] for result in results[-2:]] == [True, True]
    assert results[-1]["unseen"] == ["valve"]
    n_flagged = sum(result["flagged"] for result in results)
    assert err.endswith(f": {n_flagged} flagged at an effective rate of 0.05, 0 could not be scored\n")


def test_score_takes_a_false_discovery_rate_over_the_whole_file(run: Run, models: Path, tmp_path: Path) -> None:
    """20,000 records are several batches: what is flagged in the first depends on those in the last."""
    path = ndjson(tmp_path / "many.ndjson", [odd_record()] * 2_000 + normal_records(18_000, 30))
    code, out, _ = run("score", "pumps", path, "--models", models, "--fdr", 0.1)
    results = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    p_values = np.array([result["p_value"] for result in results])
    flagged = false_discovery_control(p_values, method="bh") <= 0.1
    assert [result["flagged"] for result in results] == flagged.tolist()
    assert flagged[:2_000].all()


def test_score_holds_a_false_discovery_rate_in_each_window_of_a_stream(run: Run, models: Path, tmp_path: Path) -> None:
    """Alone among 50 normal records an odd one is not found; ten among 40 are."""
    records = [odd_record(), *normal_records(49, 30), *[odd_record()] * 10, *normal_records(40, 31)]
    path = ndjson(tmp_path / "stream.ndjson", records)
    code, out, err = run("score", "pumps", path, "--models", models, "--fdr", 0.1, "--window", 50)
    flagged = [json.loads(line)["flagged"] for line in out.splitlines()]
    assert (code, sum(flagged[:50]), flagged[50:60]) == (0, 0, [True] * 10)
    assert "flagged at a false discovery rate of 0.1 in each 50 records, 0 could not be scored" in err
    code, _, err = run("score", "pumps", path, "--models", models, "--rate", 0.1, "--window", 50)
    assert (code, err) == (2, "nelbo: window: expected it beside a false discovery rate, got none\n")


def test_false_discovery_rate_that_finds_nothing_says_what_it_needs(run: Run, models: Path, tmp_path: Path) -> None:
    """No p-value is below 1/200: k of 50 records are allowed at k/50 · 0.1 ≥ 1/200, from 2.5 on."""
    path = ndjson(tmp_path / "t.ndjson", [odd_record(), *normal_records(49, 30)])
    code, _, err = run("score", "pumps", path, "--models", models, "--fdr", 0.1)
    assert code == 0
    assert err.endswith(
        "with 199 calibration records, at least 3 of 50 records must stand out together before any is flagged at a "
        "false discovery rate of 0.1\n"
    )


def test_bundles_own_false_discovery_rate_holds_where_none_is_named(run: Run, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "models", fdr=0.1)
    path = ndjson(tmp_path / "t.ndjson", [odd_record()] * 10 + normal_records(40))
    target = tmp_path / "out.ndjson"
    code, out, _ = run("score", "pumps", path, "--models", tmp_path / "models", "--json", "-o", target)
    assert (code, json.loads(out)["decision"]["fdr"]) == (0, 0.1)
    code, out, _ = run("score", "pumps", path, "--models", tmp_path / "models", "--json", "-o", target, "--rate", 0.1)
    assert (json.loads(out)["decision"]["fdr"], json.loads(out)["decision"]["rate"]) == (None, 0.1)


def test_score_names_the_segments_of_a_file(run: Run, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "models", segment="valve")
    path = ndjson(tmp_path / "t.ndjson", normal_records(40))
    target = tmp_path / "out.ndjson"
    code, out, _ = run("score", "pumps", path, "--models", tmp_path / "models", "--json", "-o", target)
    assert (code, [of["segment"] for of in json.loads(out)["decision"]["segments"]]) == (0, ["open", "shut"])


def test_score_says_what_a_wish_came_to(run: Run, models: Path, tmp_path: Path) -> None:
    path, target = table(tmp_path, "csv"), tmp_path / "out.ndjson"
    wish = ("--max-false-alarms", 36, "--per", "hour", "--records-per-s", 0.1, "--confidence", 0.9)
    code, out, _ = run("score", "pumps", path, "--models", models, "-o", target, "--json", *wish)
    decision = json.loads(out)["decision"]
    assert (code, decision["rate"], decision["confidence"], decision["fdr"]) == (0, 0.1, 0.9, None)
    k = max(k for k in range(1, 20) if beta.cdf(0.1, k, 200 - k) >= 0.9)
    assert decision["effective_rate"] == k / 200
    code, _, err = run("score", "pumps", path, "--models", models, "--fdr", 0.1, "--rate", 0.1)
    assert (code, err) == (
        2,
        "nelbo: fdr: expected it without rate, confidence and max_false_alarms, got more than one of them\n",
    )


def test_same_records_score_the_same_from_every_kind_of_file(run: Run, models: Path, tmp_path: Path) -> None:
    scores = []
    for kind in ("csv", "parquet", "ndjson"):
        _, out, _ = run("score", "pumps", table(tmp_path, kind), "--models", models)
        scores.append([json.loads(line)["score"]["value"] for line in out.splitlines()])
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "ndjson"])
def test_score_writes_a_file_and_counts_on_stdout(run: Run, models: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out.{suffix}"
    code, out, _ = run("score", "pumps", table(tmp_path), "-o", output, "--models", models, "--json")
    assert code == 0
    counts = json.loads(out)
    assert (counts["model"], counts["version"], counts["n"], counts["n_faulty"]) == ("pumps", VERSION, N_NORMAL + 2, 0)
    n_lines = len(pq.read_table(output)) if suffix == "parquet" else len(output.read_text().splitlines())
    assert n_lines == N_NORMAL + 2 + (suffix == "csv")


def test_faulty_records_are_a_finding_and_stand_among_the_results(run: Run, models: Path, tmp_path: Path) -> None:
    path = ndjson(tmp_path / "t.ndjson", [odd_record(rpm="fast"), *normal_records(2)])
    code, out, err = run("score", "pumps", path, "--models", models)
    assert code == 1
    assert [list(json.loads(line))[2] for line in out.splitlines()] == ["error", "flagged", "flagged"]
    assert err.endswith("1 could not be scored\n")
    assert run("score", "pumps", path, "-o", tmp_path / "out.csv", "--models", models)[0] == 1
    assert (tmp_path / "out.csv").exists()


def test_explain_gives_contributions_of_every_record(run: Run, models: Path, tmp_path: Path) -> None:
    _, out, _ = run("score", "pumps", table(tmp_path), "--models", models, "--explain")
    assert all(len(json.loads(line)["contributions"]) == 5 for line in out.splitlines())


def test_rate_that_the_bundle_does_not_carry_is_refused_and_nothing_is_written(
    run: Run, models: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    code, out, err = run("score", "pumps", table(tmp_path), "-o", output, "--models", models, "--rate", "0.001")
    assert (code, out, output.exists()) == (2, "", False)
    assert err == (
        "nelbo: false-alarm rate 0.001 needs at least 999 calibration records, "
        "this bundle has 199; its smallest rate is 0.005\n"
    )


def test_unknown_column_is_refused_by_name(run: Run, models: Path, tmp_path: Path) -> None:
    path = table(tmp_path, "csv", colour=["red"] * (N_NORMAL + 2))
    code, _, err = run("score", "pumps", path, "--models", models)
    assert code == 2
    assert err == (
        f"nelbo: {path}: expected the columns of pumps@{VERSION}, got another one, 'colour'; "
        'drop it, or set "extra": "ignore" in the schema\n'
    )


def test_reader_that_has_seen_enough_gets_no_traceback(models: Path, tmp_path: Path) -> None:
    path = ndjson(tmp_path / "t.ndjson", normal_records(20_000))
    nelbo = Path(sys.executable).with_name("nelbo")
    with subprocess.Popen(
        [nelbo, "score", "pumps", path, "--models", models], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_full_disk_is_one_sentence(models: Path, tmp_path: Path) -> None:
    nelbo = Path(sys.executable).with_name("nelbo")
    path = ndjson(tmp_path / "t.ndjson", normal_records(1_000))
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [nelbo, "score", "pumps", path, "--models", models], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr.decode()) == (2, "nelbo: output: No space left on device\n")


# --- evaluate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
@pytest.mark.parametrize("label", ["failed", "verdict"])
def test_evaluate_measures_against_a_label_that_the_schema_knows_or_not(
    run: Run, models: Path, tmp_path: Path, kind: str, label: str
) -> None:
    path = table(tmp_path, kind, **{label: ["no"] * N_NORMAL + ["yes", "melted"]})
    code, out, _ = run("evaluate", "pumps", path, "--label", label, "--normal", "no", "--models", models, "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["n"], found["n_anomalies"], found["rate"]) == (N_NORMAL + 2, 2, 0.05)
    assert list(found["statistics"]) == ["score", "elbo", "reconstruction_error"]
    score = found["statistics"]["score"]
    assert list(score) == ["auroc", "average_precision", "f1", "realised_rate", "power"]
    assert (score["auroc"], score["power"]) == (1.0, 1.0)


def test_evaluate_prints_a_table_for_people(run: Run, models: Path, tmp_path: Path) -> None:
    path = table(tmp_path, failed=[False] * N_NORMAL + [True, True])
    code, out, _ = run("evaluate", "pumps", path, "--label", "failed", "--normal", "false", "--models", models)
    assert code == 0
    assert out.startswith(f"pumps@{VERSION}: {N_NORMAL + 2} records, 2 anomalies")
    assert "reconstruction_error" in out


def test_records_without_a_label_and_faulty_ones_are_left_out_and_counted(
    run: Run, models: Path, tmp_path: Path
) -> None:
    records = [{**record, "failed": 0} for record in normal_records(5)]
    records += [odd_record(failed=1), odd_record(failed=None), odd_record(), odd_record(rpm="x", failed=1)]
    path = ndjson(tmp_path / "t.ndjson", records)
    code, out, err = run("evaluate", "pumps", path, "--label", "failed", "--normal", "0", "--models", models, "--json")
    assert (code, json.loads(out)["n"], json.loads(out)["n_anomalies"]) == (1, 6, 1)
    assert err.endswith("2 records have no label and are left out\n1 records could not be scored and are left out\n")


@pytest.mark.parametrize(
    ("label", "normal", "detail"),
    [
        ("fault", "0", "expected a column 'fault', got only 'serial', 'pressure', 'in/out [l/s]', 'rpm', 'valve', "),
        ("failed", "no", "column 'failed' holds no 'no', only '0', '1'"),
        ("pressure", "x", "column 'pressure' holds no 'x', only "),
    ],
)
def test_label_that_is_not_there_is_refused_with_what_is(
    run: Run, models: Path, tmp_path: Path, label: str, normal: str, detail: str
) -> None:
    for kind in ("csv", "parquet", "ndjson"):
        path = table(tmp_path, kind, failed=[0] * N_NORMAL + [1, 1])
        code, out, err = run("evaluate", "pumps", path, "--label", label, "--normal", normal, "--models", models)
        assert (code, out) == (2, "")
        assert err.startswith(f"nelbo: {path}: {detail}")
        assert len(err.splitlines()) == 1


def test_labels_of_one_kind_are_refused(run: Run, models: Path, tmp_path: Path) -> None:
    path = table(tmp_path, failed=[0] * (N_NORMAL + 2))
    code, _, err = run("evaluate", "pumps", path, "--label", "failed", "--normal", "0", "--models", models)
    assert code == 2
    assert err == (
        f"nelbo: an evaluation needs normal records and anomalies; all {N_NORMAL + 2} records are normal records\n"
    )


# --- drift -------------------------------------------------------------------------------------------


def test_drift_of_the_same_source_is_fresh(run: Run, models: Path, tmp_path: Path) -> None:
    path = ndjson(tmp_path / "same.ndjson", normal_records(600, 21))
    code, out, err = run("drift", "pumps", path, "--models", models)
    assert (code, err) == (0, "")
    assert out.startswith(f"pumps@{VERSION}: 600 records against 400 of the fit")
    assert "in/out [l/s]" in out
    assert out.splitlines()[-1] == "fresh: nothing in 600 records is beyond chance"


@pytest.mark.parametrize("kind", ["csv", "parquet", "ndjson"])
def test_drift_names_the_field_and_the_next_command(run: Run, models: Path, tmp_path: Path, kind: str) -> None:
    records = [record | {"in/out [l/s]": record["in/out [l/s]"] + 1.5} for record in normal_records(600, 21)]
    path = write_table(tmp_path, kind, records)
    code, out, _ = run("drift", "pumps", path, "--models", models)
    assert code == 1
    *_, verdict, command = out.splitlines()
    assert verdict.partition(": ")[2].startswith("field 'in/out [l/s]' has changed most: PSI ")
    assert command == f"next: nelbo fit {path} --name pumps"


def test_drift_prints_json_for_programs(run: Run, models: Path, tmp_path: Path) -> None:
    records = normal_records(600, 22)
    for record in records[::15]:
        record["valve"] = "ajar"
    code, out, err = run("drift", "pumps", ndjson(tmp_path / "t.ndjson", records), "--models", models, "--json")
    found = json.loads(out)
    assert (code, err) == (1, "")
    assert list(found)[:6] == ["model", "version", "state", "reason", "next_command", "n_records"]
    assert found["reason"].startswith(
        "field 'valve' has changed most: 6.7% of 600 records have a category that the fit"
    )
    valve = found["fields"][1]
    assert (valve["field"], valve["unseen"], valve["changes"]) == ("valve", 40 / 600, ["values", "unseen"])


def test_drift_of_few_records_says_that_they_are_few(run: Run, models: Path, tmp_path: Path) -> None:
    code, out, _ = run("drift", "pumps", table(tmp_path), "--models", models)
    assert (code, out.splitlines()[-1]) == (0, "fresh: there are 32 records, and a judgement needs 250")


def test_drift_leaves_faulty_records_out_and_counts_them(run: Run, models: Path, tmp_path: Path) -> None:
    path = ndjson(tmp_path / "t.ndjson", [odd_record(rpm="fast"), *normal_records(300, 23)])
    code, out, err = run("drift", "pumps", path, "--models", models, "--json")
    found = json.loads(out)
    assert (code, found["n_records"], found["n_faulty"]) == (0, 300, 1)
    assert err == "1 records could not be scored and are left out\n"


# --- what is missing, and what is our own mistake ----------------------------------------------------


def guarded(monkeypatch: pytest.MonkeyPatch, module: str, missing: str) -> Callable[..., None]:
    """The command `fit` of a module whose import of a library fails."""

    def command() -> None:
        raise ModuleNotFoundError(f"No module named '{missing}'", name=missing)

    monkeypatch.setattr(EntryPoint, "load", lambda _: command)
    return cli._command(EntryPoint("fit", f"{module}.cli:fit", "nelbo.commands"))


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("training", "torch", "training"),
        ("training", "pyarrow.parquet", "training"),
        ("service", "fastapi", "service"),
        ("nelbo", "pyarrow", "files"),
        ("nelbo", "sklearn.metrics", "files"),
    ],
)
def test_missing_library_is_named_by_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch, module: str, missing: str, extra: str
) -> None:
    with pytest.raises(NelboError) as info:
        guarded(monkeypatch, module, missing)()
    assert str(info.value) == f"nelbo fit needs the {extra} extra: pip install 'nelbo[{extra}]'"


@pytest.mark.parametrize("missing", ["training.pipline", "nelbo.score", "nmupy", "torchvision"])
def test_misspelt_import_is_no_missing_extra(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    with pytest.raises(ModuleNotFoundError):
        guarded(monkeypatch, "training", missing)()


def test_libraries_of_the_extras_are_those_that_are_declared() -> None:
    imported_as = {"scikit-learn": "sklearn", "pysimdjson": "simdjson"}
    for extra, libraries in cli._BROUGHT_BY.items():
        declared = {
            requirement.split(">")[0].split(";")[0].split("[")[0].strip()
            for requirement in requires("nelbo") or []
            if f"extra == '{extra}'" in requirement
        } - {"nelbo"}
        names = {imported_as.get(name, name.replace("-", "_")) for name in declared}
        # Starlette comes with FastAPI; the training extra takes in the one for files.
        assert names <= libraries
        assert libraries - names <= {"starlette", "pyarrow", "sklearn"}


def test_own_mistake_shows_its_traceback_and_exits_with_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("amount")

    monkeypatch.setattr(cli, "_app", lambda: broken)
    code, out, err = run("verify")
    assert (code, out) == (3, "")
    assert "KeyError: 'amount'" in err
    assert err.endswith("nelbo: this is a mistake of nelbo's own; please report it with the lines above\n")
