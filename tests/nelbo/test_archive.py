"""`nelbo score` over files: killed and resumed, by several processes, several files at once."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from nelbo import parts
from tests.bundles import normal_records, odd_record, write_tiny_bundle
from tests.commands import exit_code

Run = Callable[..., tuple[int, str, str]]
SUFFIXES = ("csv", "parquet", "ndjson")
N = 1_200
_BYTES, _RECORDS = 8_000, 80  # a dozen parts
# The command, cut into small parts, of which each takes a while.
_SLOWLY = f"""
import sys, time
from nelbo import parts, partial
parts._BYTES, parts._RECORDS = {_BYTES}, {_RECORDS}
add = partial.Partial.add
partial.Partial.add = lambda *given: (add(*given), time.sleep(0.05))
from nelbo.cli import main
main()
"""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_bundle(folder)
    write_tiny_bundle(folder, "others", seed=1)
    return folder


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same records as a file of each kind; one in 40 is odd."""
    folder = tmp_path_factory.mktemp("tables")
    records = normal_records(N, seed=8)
    records[::40] = [odd_record() | {"serial": f"odd-{i}"} for i in range(N // 40)]
    (folder / "t.ndjson").write_text("".join(json.dumps(record) + "\n" for record in records))
    pq.write_table(pa.Table.from_pylist(records), folder / "t.parquet", row_group_size=300)
    pa_csv.write_csv(pa.Table.from_pylist(records), folder / "t.csv")
    return folder


@pytest.fixture
def run(models: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """Runs `nelbo score` in this process, over small parts: its exit code, its stdout, its stderr.

    By one process, unless it names another number.
    """
    monkeypatch.setattr(parts, "_BYTES", _BYTES)
    monkeypatch.setattr(parts, "_RECORDS", _RECORDS)

    def run(*arguments: object) -> tuple[int, str, str]:
        jobs = () if "--jobs" in arguments else ("--jobs", 1)
        code = exit_code(monkeypatch, "score", *arguments, *jobs, "--models", models)
        captured = capfdbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return run


def killed(n_parts: int, *arguments: object) -> None:
    """Starts `nelbo score` and kills it, and nothing else, as soon as so many parts are written."""
    output = Path(str(arguments[arguments.index("-o") + 1]))
    journal = output.with_name(f".{output.name}.partial") / "journal"
    command = [sys.executable, "-c", _SLOWLY, "score", *map(str, arguments)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 1 + n_parts:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not output.exists()
    while is_group_there(process.pid):  # those that it started end with it
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_group_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- killed and resumed ------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "jobs"), [("csv", 1), ("ndjson", 2), ("parquet", 1), ("parquet", 2)])
def test_run_that_is_killed_again_and_again_ends_as_one_that_is_not(
    run: Run, models: Path, tables: Path, tmp_path: Path, suffix: str, jobs: int
) -> None:
    table, output, other = tables / f"t.{suffix}", tmp_path / f"out.{suffix}", tmp_path / f"other.{suffix}"
    assert run("pumps", table, "-o", other, "--jobs", 1)[0] == 0
    for n_parts in (1, 6):
        killed(n_parts, "pumps", table, "-o", output, "--jobs", jobs, "--models", models)
    code, out, err = run("pumps", table, "-o", output, "--jobs", jobs, "--json")
    assert (code, json.loads(out)["n"]) == (0, N)
    assert f"{output}: goes on after " in err
    assert output.read_bytes() == other.read_bytes()
    assert names(tmp_path) == [other.name, output.name]


@pytest.fixture(scope="session")
def killed_run(models: Path, tables: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table, and what a run left that was killed on the way."""
    folder = tmp_path_factory.mktemp("killed")
    shutil.copy(tables / "t.csv", folder)
    killed(3, "pumps", folder / "t.csv", "-o", folder / "out.csv", "--jobs", 1, "--models", models)
    return folder


@pytest.fixture
def stopped(killed_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A table, and where the output of a run would be that was killed on the way."""
    shutil.copytree(killed_run, tmp_path, dirs_exist_ok=True)  # keeps times of change
    return tmp_path / "t.csv", tmp_path / "out.csv"


def test_run_goes_on_wherever_its_files_are_by_now(run: Run, stopped: tuple[Path, Path]) -> None:
    assert "out.csv: goes on after " in run("pumps", stopped[0], "-o", stopped[1])[2]


@pytest.mark.parametrize(
    ("bundle", "options", "why"),
    [
        ("others", (), "it was by another bundle"),
        ("pumps", ("--rate", 0.1), "it had other options"),
        ("pumps", ("--no-explain",), "it had other options"),
    ],
)
def test_run_of_another_kind_starts_anew_and_says_why(
    run: Run, stopped: tuple[Path, Path], tmp_path: Path, bundle: str, options: tuple[object, ...], why: str
) -> None:
    table, output = stopped
    code, _, err = run(bundle, table, "-o", output, *options)
    assert code == 0
    assert err.startswith(f"{output}: starts anew, not where an earlier run stopped: {why}\n")
    assert run(bundle, table, "-o", tmp_path / "other.csv", *options)[0] == 0
    assert output.read_bytes() == (tmp_path / "other.csv").read_bytes()


def test_table_that_has_changed_is_scored_anew(run: Run, stopped: tuple[Path, Path]) -> None:
    table, output = stopped
    table.write_bytes(table.read_bytes().replace(b"odd-0", b"odd-X"))
    assert (
        "starts anew, not where an earlier run stopped: the table has changed" in run("pumps", table, "-o", output)[2]
    )
    assert b"odd-X" in output.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "journal").write_bytes((folder / "journal").read_bytes()[:-9]),
        lambda folder: (folder / "output").write_bytes((folder / "output").read_bytes() + b"half a line"),
        lambda folder: (folder / "output").write_bytes((folder / "output").read_bytes()[:-9]),
        lambda folder: (folder / "output").unlink(),
        lambda folder: (folder / "journal").write_bytes(b""),
        lambda folder: (folder / "part-7.csv").write_bytes(b"left"),
    ],
    ids=["torn line of the journal", "half a part", "lost end", "no output", "no journal", "part of nobody"],
)
def test_whatever_a_crash_leaves_each_record_is_there_once(
    run: Run, stopped: tuple[Path, Path], tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    table, output = stopped
    damage(tmp_path / ".out.csv.partial")
    assert run("pumps", table, "-o", output)[0] == 0
    rows = pa_csv.read_csv(output)
    assert rows["index"].to_pylist() == list(range(N))
    assert names(tmp_path) == ["out.csv", "t.csv"]


def test_torn_line_of_a_journal_costs_one_part_whoever_resumes(
    run: Run, stopped: tuple[Path, Path], models: Path, tmp_path: Path
) -> None:
    """A line that was torn once does not spoil those that later runs write."""
    table, output = stopped
    journal = tmp_path / ".out.csv.partial" / "journal"
    journal.write_bytes(journal.read_bytes()[:-9])
    n_lines = journal.read_bytes().count(b"\n")
    killed(n_lines + 1, "pumps", table, "-o", output, "--jobs", 1, "--models", models)
    (code, _, err), n = run("pumps", table, "-o", output), len(pa_csv.read_csv(output))
    assert (code, n) == (0, N)
    assert "goes on after" in err


def test_failure_keeps_what_is_done_and_the_output_that_was(
    run: Run, models: Path, tables: Path, tmp_path: Path
) -> None:
    """A ragged record, far behind."""
    table, output = tmp_path / "t.csv", tmp_path / "out.csv"
    table.write_bytes((tables / "t.csv").read_bytes() + b"1,2\n")
    output.write_text("earlier")
    code, _, err = run("pumps", table, "-o", output)
    assert (code, output.read_text()) == (2, "earlier")
    assert err == f"nelbo: {table}: record {N}: expected 6 values as in the header, got 2\n"
    assert names(tmp_path) == [".out.csv.partial", "out.csv", "t.csv"]


def test_second_run_at_the_same_output_is_refused(run: Run, tables: Path, tmp_path: Path) -> None:
    folder = tmp_path / ".out.csv.partial"
    folder.mkdir()
    with (folder / "journal").open("wb") as journal:
        fcntl.flock(journal, fcntl.LOCK_EX)
        code, _, err = run("pumps", tables / "t.csv", "-o", tmp_path / "out.csv")
    assert (code, err) == (2, f"nelbo: {tmp_path}/out.csv: another process is writing it\n")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_folder_that_is_not_there_is_refused(run: Run, tables: Path, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / "none" / f"out.{suffix}"
    code, _, err = run("pumps", tables / "t.csv", "-o", output)
    assert (code, err) == (2, f"nelbo: {output}: cannot be written: No such file or directory\n")


# --- several processes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("csv", ()),
        ("parquet", ("--fdr", 0.2)),
        ("ndjson", ("--explain",)),
        ("ndjson", ("--fdr", 0.2, "--window", 50)),
    ],
)
def test_many_jobs_write_what_one_writes(
    run: Run, tables: Path, tmp_path: Path, suffix: str, options: tuple[object, ...]
) -> None:
    outputs = [tmp_path / f"{jobs}.{suffix}" for jobs in (1, 2)]
    for jobs, output in zip((1, 2), outputs, strict=True):
        assert run("pumps", tables / "t.ndjson", "-o", output, "--jobs", jobs, *options)[0] == 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_many_jobs_write_the_same_lines_to_stdout(run: Run, tables: Path) -> None:
    one, two = (run("pumps", tables / "t.parquet", "--jobs", jobs)[1] for jobs in (1, 2))
    assert [json.loads(line)["index"] for line in one.splitlines()] == list(range(N))
    assert one == two


def test_window_counts_through_the_whole_file(run: Run, tables: Path, tmp_path: Path) -> None:
    """Windows of a size that no part has: what is flagged is what each window of 250 alone would flag."""
    output = tmp_path / "out.ndjson"
    run("pumps", tables / "t.ndjson", "-o", output, "--fdr", 0.3, "--window", 250)
    lines = (tables / "t.ndjson").read_text().splitlines(keepends=True)
    flagged = []
    for start in range(0, N, 250):
        (tmp_path / "w.ndjson").write_text("".join(lines[start : start + 250]))
        _, out, _ = run("pumps", tmp_path / "w.ndjson", "--fdr", 0.3)
        flagged += [json.loads(line)["flagged"] for line in out.splitlines()]
    assert [json.loads(line)["flagged"] for line in output.read_text().splitlines()] == flagged
    assert any(flagged)


def test_error_of_a_part_names_the_record_by_its_place_in_the_file(run: Run, tables: Path, tmp_path: Path) -> None:
    lines = (tables / "t.ndjson").read_text().splitlines(keepends=True)
    lines[1_000] = json.dumps(odd_record(rpm="fast")) + "\n"
    (tmp_path / "t.ndjson").write_text("".join(lines))
    code, out, _ = run("pumps", tmp_path / "t.ndjson", "--jobs", 2)
    (faulty,) = [line for line in map(json.loads, out.splitlines()) if "error" in line]
    assert (code, faulty["index"]) == (1, 1_000)
    assert faulty["error"]["detail"] == "record 1000, field 'rpm': expected a number, got 'fast'"


@pytest.mark.parametrize(("option", "n_explained"), [("--explain", N), ("--no-explain", 0)])
def test_who_is_explained_is_an_option(run: Run, tables: Path, option: str, n_explained: int) -> None:
    _, out, _ = run("pumps", tables / "t.ndjson", option)
    results = [json.loads(line) for line in out.splitlines()]
    assert sum(result["contributions"] is not None for result in results) == n_explained
    assert sum(result["flagged"] for result in results) >= N // 40


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_table_without_records_becomes_a_file_without_results(
    run: Run, tables: Path, tmp_path: Path, suffix: str
) -> None:
    header = (tables / "t.csv").read_text().splitlines(keepends=True)[0]
    (tmp_path / "t.csv").write_text(header)
    code, out, _ = run("pumps", tmp_path / "t.csv", "-o", tmp_path / f"out.{suffix}", "--json")
    assert (code, json.loads(out)["n"]) == (0, 0)
    if suffix == "parquet":
        assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    else:
        assert len((tmp_path / f"out.{suffix}").read_text().splitlines()) == (suffix == "csv")


# --- several files -----------------------------------------------------------------------------------


def test_several_tables_become_a_file_each_and_are_left_when_finished(run: Run, tables: Path, tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        shutil.copy(tables / f"t.{suffix}", tmp_path / f"{suffix}.{suffix}")
    given = [tmp_path / f"{suffix}.{suffix}" for suffix in SUFFIXES]
    folder = tmp_path / "scores"
    code, out, _ = run("pumps", *given, "-o", folder, "--jobs", 2, "--json")
    summaries = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [summary["output"] for summary in summaries] == [str(folder / path.name) for path in given]
    assert {summary["n"] for summary in summaries} == {N}
    assert [name for name in names(folder) if name[0] != "."] == ["csv.csv", "ndjson.ndjson", "parquet.parquet"]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    given[0].write_bytes(given[0].read_bytes())  # another time of change
    code, out, err = run("pumps", *given, "-o", folder, "--json")
    assert [json.loads(line)["output"] for line in out.splitlines()] == [str(folder / "csv.csv")]
    assert err.splitlines() == [
        f"{folder}/{name}: finished by an earlier run, {N:,} records" for name in ("parquet.parquet", "ndjson.ndjson")
    ]
    changed = {path.name for path, was in before.items() if path.stat().st_mtime_ns != was}
    assert changed == {"csv.csv", ".csv.csv.done"}


def test_results_of_each_table_are_those_of_it_alone(run: Run, tables: Path, tmp_path: Path) -> None:
    given = [tables / "t.parquet", tables / "t.csv"]
    run("pumps", *given, "-o", tmp_path / "together", "--fdr", 0.2)
    for table in given:
        run("pumps", table, "-o", tmp_path / table.name, "--fdr", 0.2)
        assert (tmp_path / "together" / table.name).read_bytes() == (tmp_path / table.name).read_bytes()


def test_tables_that_cannot_have_a_file_each_are_refused(run: Run, tables: Path, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    other = tmp_path / "sub" / "t.csv"
    shutil.copy(tables / "t.csv", other)
    refused: list[tuple[tuple[Any, ...], str]] = [
        ((tables / "t.csv", other), "expected -o FOLDER for the results of 2 tables, got none"),
        (
            (tables / "t.csv", other, "-o", tmp_path),
            f"{other}: its results would have the same name as those of {tables}/t.csv, {tmp_path}/t.csv",
        ),
        ((other, "-o", tmp_path / "sub"), f"{other}: expected another folder for its results, got its own"),
        ((tables / "t.csv", other, "-o", other), f"{other}: expected a folder for the results of 2 tables, got a file"),
    ]
    for arguments, text in refused:
        assert run("pumps", *arguments) == (2, "", f"nelbo: {text}\n")
