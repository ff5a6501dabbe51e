import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.quality import pyod_peers
from benchmarks.quality.__main__ import main
from benchmarks.quality.detectors import PEERS, Ranking, detectors, matrices, offered
from benchmarks.quality.progress import Watch
from benchmarks.quality.protocol import Halves, halves, read_dataset
from benchmarks.quality.results import COLUMNS, append_rows, read_rows
from nelbo.errors import TableError
from tests.fits import numeric_table

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tables, one of arrays and one mixed; every tenth row is far out."""
    data = tmp_path / "data"
    data.mkdir()
    x = np.column_stack(list(numeric_table(120).to_pydict().values()))
    y = np.arange(120) % 10 == 0
    x[y] += 8
    np.savez(data / "a.npz", X=x, y=y.astype(int))
    lines = [f"{row[0]:.3f},{'x' if row[1] > 0 else 'y'},{int(odd)}" for row, odd in zip(x, y, strict=True)]
    (data / "b.csv").write_text("\n".join(["number,kind,label", *lines]) + "\n")
    return data


def run(folder: Path, *detectors_: str, seeds: Sequence[int] = (0,), options: Sequence[str] = ()) -> int:
    arguments = ["--data", str(folder), "--out", str(folder.parent / "out" / "q.csv"), "--seeds", *map(str, seeds)]
    return main([*arguments, *(["--detectors", *detectors_] if detectors_ else []), *options])


def measured(folder: Path) -> list[tuple[str, str, int]]:
    return [(row.dataset, row.detector, row.seed) for row in read_rows(folder.parent / "out" / "q.csv")]


def test_a_run_leaves_rows_a_page_and_a_picture(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder.parent / "quick.toml").write_text("steps = 20\nencoder = [8]\ndecoder = [8]\n")
    (folder / "b.csv").unlink()
    assert run(folder, "nelbo", "DTE-NP", options=["--config", str(folder.parent / "quick.toml")]) == 0
    out = folder.parent / "out"
    ours = ["nelbo:score", "nelbo:elbo", "nelbo:reconstruction_error"]
    assert (out / "q.csv").read_text().startswith(",".join(COLUMNS) + "\n")
    assert measured(folder) == [("a", name, 0) for name in [*ours, "DTE-NP"]]
    assert all(row.auroc > 0.9 for row in read_rows(out / "q.csv"))
    assert (out / "q.png").read_bytes().startswith(PNG)
    found = json.loads((out / "q.json").read_text())
    assert found["config"] == {"steps": 20, "encoder": [8], "decoder": [8]}
    assert str(folder) not in (out / "q.md").read_text()
    assert "nelbo:score against each peer" in capsys.readouterr().out

    (folder.parent / "quick.toml").write_text("steps = 21\nencoder = [8]\ndecoder = [8]\n")
    assert run(folder, "nelbo", options=["--config", str(folder.parent / "quick.toml")]) == 2
    assert "made with other settings (steps); choose another --out" in capsys.readouterr().err


def test_a_run_that_is_started_again_does_what_is_missing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "kNN") == 0
    capsys.readouterr()
    assert run(folder, "kNN", "PCA", seeds=(0, 1)) == 0
    shown = [line.partition("] ")[2].partition(":")[0] for line in capsys.readouterr().err.splitlines()]
    assert shown == [f"{table} seed {rest}" for table in "ab" for rest in ("0 PCA", "1 kNN", "1 PCA")]
    assert len(measured(folder)) == len(set(measured(folder))) == 8


def test_one_split_seed_gives_every_fit_the_same_halves(folder: Path) -> None:
    """DTE-NP draws nothing, so that only other halves could change its figures."""
    assert run(folder, "DTE-NP", seeds=(0, 1), options=["--split-seed", "5"]) == 0
    one, two = (
        [(row.dataset, row.auroc, row.ap) for row in read_rows(folder.parent / "out" / "q.csv") if row.seed == seed]
        for seed in (0, 1)
    )
    assert one == two


def test_half_of_the_numbers_can_be_made_categories(folder: Path) -> None:
    assert run(folder, "DTE-NP", options=["--categories"]) == 0
    assert measured(folder) == [("a", "DTE-NP", 0), ("b", "DTE-NP", 0)]


def test_a_detector_that_crashes_costs_its_own_row_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    working = PEERS["kNN"]

    def crashes_on_mixed(parts: Halves, seed: int) -> Ranking:
        if "kind" in parts.train.column_names:
            raise ZeroDivisionError("no spread\nand more")
        return working(parts, seed)

    monkeypatch.setitem(PEERS, "kNN", crashes_on_mixed)
    assert run(folder, "kNN", "PCA") == 1
    assert measured(folder) == [("a", "kNN", 0), ("a", "PCA", 0), ("b", "PCA", 0)]
    assert "not run: b seed 0 kNN: ZeroDivisionError: no spread\n" in capsys.readouterr().err
    page = (folder.parent / "out" / "q.md").read_text()
    assert "- b seed 0 kNN: ZeroDivisionError: no spread\n" in page
    assert "kNN: not on every table" in page
    monkeypatch.setitem(PEERS, "kNN", working)
    assert run(folder, "kNN", "PCA") == 0  # it is tried again
    assert ("b", "kNN", 0) in measured(folder)


def test_scores_that_are_no_numbers_are_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PEERS, "kNN", lambda parts, _: Ranking({"kNN": np.full(len(parts.is_anomaly), np.nan)}, 0, 0))
    assert run(folder, "kNN") == 1
    assert measured(folder) == []


def test_a_malformed_table_is_named_once_and_the_others_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(folder / "a0.npz", X=np.ones((3, 2)))
    assert run(folder, "kNN", "PCA", seeds=(0, 1)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith("not run")] == [
        "not run: a0.npz: expected arrays 'X' and 'y', got X"
    ]
    assert {table for table, _, _ in measured(folder)} == {"a", "b"}


@pytest.mark.parametrize(
    ("detector", "expected"),
    [
        ("PyOD VAE", "detector 'PyOD VAE' needs pyod and tqdm: pip install 'nelbo[pyod]'\n"),
        ("kMN", "there is no detector 'kMN', only nelbo, DTE-NP, kNN,"),
    ],
)
def test_a_detector_that_is_not_there_is_refused(
    folder: Path, detector: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pyod_peers, "_NEEDED", ("pyod_that_is_absent",))
    expected = expected.replace("pyod and tqdm", "pyod_that_is_absent")
    assert run(folder, "kNN", detector) == 2
    assert capsys.readouterr().err.startswith(expected)
    assert not any(name.startswith("PyOD") for name in offered())


def test_a_folder_without_tables_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty", "kNN") == 2
    assert "expected .npz or .csv files, found none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "expected"),
    [("a,b\n1,2\n", "expected the columns dataset,"), (",".join(COLUMNS) + "\na,kNN,0\n", "line 2 is no row")],
)
def test_a_file_of_something_else_is_not_taken_for_results(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "q.csv").write_text(content)
    with pytest.raises(TableError, match=expected):
        read_rows(tmp_path / "q.csv")


def test_rows_survive_the_file(folder: Path) -> None:
    run(folder, "PCA")
    rows = read_rows(folder.parent / "out" / "q.csv")
    append_rows(folder.parent / "copy.csv", rows[:1])
    append_rows(folder.parent / "copy.csv", rows[1:])
    assert read_rows(folder.parent / "copy.csv") == rows


def test_peers_see_standardised_numbers_and_an_unseen_category_as_no_column(folder: Path) -> None:
    parts = halves(read_dataset(folder / "b.csv"), 0)
    unseen = parts.test.set_column(1, "kind", [["never seen"] * parts.test.num_rows])
    train, test = matrices(Halves(parts.train, unseen, parts.is_anomaly))
    assert train[:, 0].mean() == pytest.approx(0)
    assert train[:, 0].std() == pytest.approx(1)
    assert (train[:, 1:] ** 2).sum(axis=1) == pytest.approx(0.5)  # two categories lie 1 apart
    assert not test[:, 1:].any()


def test_every_peer_ranks_far_rows_first(folder: Path) -> None:
    parts = halves(read_dataset(folder / "a.npz"), 0)
    for name, detect in detectors(list(PEERS)).items():
        scores = detect(parts, 0).scores[name]
        assert scores[parts.is_anomaly].mean() > scores[~parts.is_anomaly].mean(), name


@pytest.mark.skipif(bool(pyod_peers.missing_libraries()), reason="PyOD is optional: pip install 'nelbo[pyod]'")
def test_the_peers_of_pyod_rank_far_rows_first_where_it_is_installed(folder: Path) -> None:
    parts = halves(read_dataset(folder / "a.npz"), 0)
    for name, detect in detectors(list(pyod_peers.FITS)).items():
        scores = detect(parts, 0).scores[name]
        assert scores[parts.is_anomaly].mean() > scores[~parts.is_anomaly].mean(), name


def test_a_watch_counts_what_was_done_before() -> None:
    text = io.StringIO()
    with Watch(["quick", "slow"], n_done=3, console=Console(file=text, width=200)) as watch:
        watch.unit("quick", "a", lambda: ["fine"])
        watch.skip(["slow"], "left out")
    assert [line.partition(",")[0] for line in text.getvalue().splitlines()] == ["[4/5", "[5/5"]
