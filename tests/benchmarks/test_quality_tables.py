from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.quality.protocol import Dataset, find_tables, halves, read_dataset
from nelbo.errors import TableError
from tests.fits import numeric_table

X, Y = np.ones((4, 2)), np.array([0, 0, 1, 1])


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"X": X}, "expected arrays 'X' and 'y', got X"),
        ({"X": np.ones(4), "y": Y}, "expected X of shape (rows, columns), got (4,)"),
        ({"X": np.ones((0, 2)), "y": np.ones(0)}, "expected X of shape (rows, columns), got (0, 2)"),
        ({"X": X, "y": Y[:3]}, "expected y of shape (4,) as X has 4 rows, got (3,)"),
        ({"X": X, "y": Y.reshape(2, 2)}, "expected y of shape (4,) as X has 4 rows, got (2, 2)"),
        ({"X": X, "y": np.array([0, 0, 1, np.nan])}, "expected labels 0 and 1 in y, got nan"),
        ({"X": X, "y": np.array([0, 0, 1, 2])}, "expected labels 0 and 1 in y, got 2"),
        ({"X": np.full((4, 2), "a"), "y": Y}, "expected numbers in X, got <U1"),
        ({"X": X, "y": np.zeros(4)}, "expected normal rows and anomalies, but every row is normal"),
        ({"X": X, "y": np.ones(4)}, "expected normal rows and anomalies, but every row is an anomaly"),
    ],
)
def test_malformed_arrays_are_refused_in_one_line(tmp_path: Path, arrays: dict[str, Any], expected: str) -> None:
    with pytest.raises(TableError) as caught:
        read_dataset(saved(tmp_path / "bad.npz", **arrays))
    assert str(caught.value) == f"bad.npz: {expected}"


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"plain text"])
def test_a_file_that_is_no_archive_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(TableError, match=r"^bad\.npz: expected an \.npz of numbers: [^\n]+$"):
        read_dataset(tmp_path / "bad.npz")


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "t.npy", X)
    (tmp_path / "t.npy").rename(tmp_path / "t.npz")
    with pytest.raises(TableError, match=r"^t\.npz: expected an \.npz of numbers"):
        read_dataset(tmp_path / "t.npz")


def test_labels_in_a_column_are_read_too(tmp_path: Path) -> None:
    dataset = read_dataset(saved(tmp_path / "t.npz", X=X, y=Y.reshape(4, 1)))
    assert dataset.is_anomaly.tolist() == [False, False, True, True]


def test_a_csv_is_mixed_and_labelled_by_its_column(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,label,b\n1.5,normal,x\n2.5,attack,y\n")
    dataset = read_dataset(tmp_path / "t.csv")
    assert dataset.fields.to_pydict() == {"a": [1.5, 2.5], "b": ["x", "y"]}
    assert dataset.is_anomaly.tolist() == [False, True]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a,b\n1,2\n", "t.csv: expected a column 'label', got a, b"),
        ("a,label\n1,normal\n2,\n", "t.csv: row 1 has no label"),
        ("a,label\n1,normal\n", "t.csv: expected normal rows and anomalies, but every row is normal"),
    ],
)
def test_a_csv_without_labels_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(TableError) as caught:
        read_dataset(tmp_path / "t.csv")
    assert str(caught.value) == expected


def test_two_tables_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("glass.npz", "glass.csv", "readme.txt"):
        (tmp_path / name).touch()
    with pytest.raises(TableError, match="two tables are called 'glass'"):
        find_tables(tmp_path)


def test_halves_hold_every_row_once_and_no_anomaly_to_fit_on() -> None:
    table = numeric_table(101)
    dataset = Dataset("t", table, np.arange(101) % 10 == 0)
    parts = halves(dataset, seed=3)
    anomalies = set(table["x0"].to_numpy()[dataset.is_anomaly])
    train, test = parts.train["x0"].to_pylist(), parts.test["x0"].to_numpy()
    assert sorted([*train, *test]) == sorted(table["x0"].to_pylist())
    assert not anomalies & set(train)
    assert set(test[parts.is_anomaly]) == anomalies
