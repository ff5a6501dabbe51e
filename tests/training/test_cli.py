import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nelbo.bundle import read_bundle
from nelbo.decision import Decider, n_flagged_with, smallest_rate
from nelbo.schema import read_schema
from nelbo.store import Store
from tests.commands import exit_code
from tests.fits import mixed_table, numeric_table, write_csv

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a command in this process, in an empty folder: its exit code, its stdout, its stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick.toml").write_text("encoder = [16]\ndecoder = [16]\nsteps = 100\nbatch_size = 64\n")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = exit_code(monkeypatch, *arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


TABLES = {
    "empty": "",
    "header only": "a,b\n",
    "one record": "a,b\n1.5,2.5\n",
    "no field left": "serial\n" + "".join(f"s{i}\n" for i in range(30)),
    "all-missing column": "a,b\n" + "".join(f"{i % 7}.5,\n" for i in range(30)),
    "constant label": "a,b,ok\n" + "".join(f"{i % 7}.5,{i % 5}.1,yes\n" for i in range(30)),
    "ragged": "a,b\n1.5,2.5,3.5\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_table_that_cannot_be_fitted_gets_one_sentence_and_leaves_nothing(run: Run, kind: str) -> None:
    Path("t.csv").write_text(TABLES[kind])
    label = ("--label", "ok", "--normal", "yes") if kind == "constant label" else ()
    code, out, err = run("fit", "t.csv", "--name", "n", *label)
    assert (code, out) == (2, "")
    assert err.strip().startswith("nelbo: t.csv: ")
    assert len(err.strip().splitlines()) == 1
    assert not Path("models").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nowhere.csv", "--name", "n"), "nowhere.csv: cannot be read: No such file or directory"),
        (("t.csv", "--name", "No Name"), "'No Name' is not a model name"),
        (("t.csv", "--name", "n", "--rate", "0.0001"), "needs at least 9999 calibration records, this table leaves 30"),
        (("t.csv", "--name", "n", "--rate", "2"), "rate: expected a number, 0 ≤ rate < 1, got 2"),
        (("t.csv", "--name", "n", "--label", "ok"), "--label needs --normal"),
        (("t.csv", "--name", "n", "--label", "ok", "--normal", "1"), "expected a column 'ok', got only"),
        (("t.csv", "--name", "n", "--schema", "none.json"), "none.json: cannot be read: No such file or directory"),
        (("t.csv", "--name", "n", "--schema", "other.json"), "'torque'"),
        (("t.csv", "--name", "n", "--config", "wrong.toml"), "wrong.toml: stepps: Extra inputs are not permitted"),
    ],
)
def test_wrong_usage_gets_one_sentence_and_leaves_nothing(run: Run, arguments: tuple[str, ...], text: str) -> None:
    write_csv(numeric_table(), Path("t.csv"))
    Path("other.json").write_text('{"columns": [{"name": "torque", "role": "field", "kind": "numeric"}]}')
    Path("wrong.toml").write_text("stepps = 3\n")
    code, _, err = run("fit", *arguments)
    assert code == 2
    assert text in err
    assert "Traceback" not in err
    assert not Path("models").exists()


def test_fit_says_what_was_learnt_and_what_comes_next(run: Run) -> None:
    write_csv(mixed_table(), Path("t.csv"))
    code, out, _ = run("fit", "t.csv", "--name", "mill", "--config", "quick.toml")
    assert code == 0
    folder = Store(Path("models")).find("mill")
    for row in ("learnt from", "320 records, 7 fields", "latents", "false-alarm rate", "smallest rate", str(folder)):
        assert row in out
    assert "nelbo serve    or    nelbo score mill TABLE" in out


def test_fit_prints_json_for_programs(run: Run) -> None:
    write_csv(numeric_table(), Path("t.csv"))
    code, out, _ = run("fit", "t.csv", "--name", "n", "--config", "quick.toml", "--json", "--seed", 3)
    found = json.loads(out)
    assert (code, found["model"], found["n_calibration"]) == (0, "n", 30)
    assert found["fields"] == [f"x{j}" for j in range(5)]
    assert read_bundle(Path(found["bundle"])).manifest.seed == 3


def test_fit_lists_suspicious_records_in_lines_that_exclude_takes(run: Run) -> None:
    write_csv(mixed_table(), Path("t.csv"))
    _, out, _ = run("fit", "t.csv", "--name", "mill", "--config", "quick.toml")
    lines = out.splitlines()
    at = lines.index("training records to look at: the oddest of 400")
    assert lines[at + 1].split() == ["record", "id", "p-value", "why"]
    assert lines[at + 7] == "the first 20 are in the report; --exclude FILE fits without those that you name"
    Path("faults.txt").write_text("\n".join(lines[at + 2 : at + 7]))
    code, out, _ = run("fit", "t.csv", "--name", "mill", "--config", "quick.toml", "--exclude", "faults.txt", "--json")
    found = json.loads(out)
    assert (code, found["data"]["n_normal"], found["data"]["n_excluded"]) == (0, 395, 5)
    named = {int(line.split()[0]) for line in lines[at + 2 : at + 7]}
    assert len(named) == 5
    assert len(found["suspects"]) == 20
    assert not named & {one["record"] for one in found["suspects"]}


def test_exclusion_that_cannot_be_meant_gets_one_sentence_and_leaves_nothing(run: Run) -> None:
    write_csv(numeric_table(), Path("t.csv"))
    Path("faults.txt").write_text("3 fault\n300 fault\n")
    code, _, err = run("fit", "t.csv", "--name", "n", "--exclude", "faults.txt")
    assert code == 2
    expected = "faults.txt, line 2: record 300 is beyond the table, which has 300 records, counted from 0"
    assert err.strip() == f"nelbo: {expected}"
    assert not Path("models").exists()


def test_schema_that_is_written_can_be_fitted(run: Run) -> None:
    write_csv(mixed_table(), Path("t.csv"))
    code, _, err = run("schema", "t.csv", "-o", "schema.json")
    assert (code, err) == (0, "wrote schema.json; next: nelbo fit t.csv --schema schema.json --name NAME\n")
    assert [column.role for column in read_schema(Path("schema.json")).columns][:2] == ["id", "field"]
    code, _, _ = run("fit", "t.csv", "--name", "mill", "--schema", "schema.json", "--config", "quick.toml")
    assert code == 0


def test_calibrate_names_the_new_threshold_beside_the_old_one(run: Run) -> None:
    write_csv(numeric_table(), Path("t.csv"))
    write_csv(numeric_table(400, seed=1), Path("fresh.csv"))
    run("fit", "t.csv", "--name", "n", "--config", "quick.toml")
    code, out, _ = run("calibrate", "n", "fresh.csv")
    assert code == 0
    assert "400 calibration records, effective rate 0.998%" in out
    assert "threshold: " in out
    assert len(Store(Path("models")).versions("n")) == 2


def test_fit_and_calibrate_judge_segments_apart(run: Run) -> None:
    """Of 400 records 40 calibrate: about 20, 12 and 8 of each line, and a rate of 10 % needs nine."""
    write_csv(mixed_table(), Path("t.csv"))
    write_csv(mixed_table(600, seed=1), Path("fresh.csv"))
    fit_it = ("fit", "t.csv", "--name", "n", "--config", "quick.toml", "--rate", 0.1)
    code, _, err = run(*fit_it, "--segment", "leak")
    assert (code, "segment 'leak': expected a field of categories; of those there are 'line'" in err) == (2, True)
    code, out, err = run(*fit_it, "--segment", "line", "--json")
    found = json.loads(out)["segments"]
    assert (code, found["field"], sum(of["n_calibration"] for of in found["values"])) == (0, "line", 40)
    assert [of["own"] for of in found["values"]] == [of["n_calibration"] >= 9 for of in found["values"]]
    code, out, err = run("calibrate", "n", "fresh.csv", "--fdr", 0.05, "--json")
    found = json.loads(out)
    assert (code, found["fdr"]) == (0, 0.05)
    assert sum(of["n_calibration"] for of in found["segments"]["values"]) == 600  # the field was kept
    assert "600 calibration records certify a false-alarm rate of 0.167 %" in err
    code, out, _ = run("calibrate", "n", "fresh.csv", "--fdr", 0.1)
    assert "instead of a rate" in out
    assert "segments: 3 of 3 of 'line' are judged by records of their own" in out


def test_fit_and_calibrate_keep_a_confidence_with_the_bundles_own_rate(run: Run) -> None:
    write_csv(numeric_table(), Path("t.csv"))
    write_csv(numeric_table(400, seed=1), Path("fresh.csv"))
    budget = ("--max-false-alarms", 180, "--per", "hour", "--records-per-s", 1)  # a twentieth of all records
    code, _, err = run("fit", "t.csv", "--name", "n", "--config", "quick.toml", *budget, "--confidence", 0.9)
    assert code == 2
    # 0.95^n ≤ 0.1 from 45 records on; a tenth of 300 are 30.
    assert "false-alarm rate 0.05 at confidence 0.9 needs at least 45 calibration records, this table leaves 30" in err
    assert not Path("models").exists()
    code, out, _ = run("fit", "t.csv", "--name", "n", "--config", "quick.toml", "--confidence", 0.9, "--json")
    assert code == 0
    assert json.loads(out)["rate"] == smallest_rate(30, 0.9)
    code, out, _ = run("calibrate", "n", "fresh.csv", *budget, "--confidence", 0.9, "--json")
    found = json.loads(out)
    assert (code, found["rate"], found["confidence"]) == (0, 0.05, 0.9)
    decision = Decider(read_bundle(Path(found["bundle"])).calibration).decide()
    assert decision.effective_rate == n_flagged_with(0.05, 400, 0.9) / 401 == found["effective_rate"]
