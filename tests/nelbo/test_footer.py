import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nelbo.footer import MAGIC, moved

SCHEMA = pa.schema([("number", pa.float64()), ("text", pa.string()), ("is_odd", pa.bool_()), ("at", pa.int64())])


def table(n: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    texts = [None if i % 3 else f"v{i % 7}" for i in range(n)]
    columns = {"number": rng.normal(size=n), "text": texts, "is_odd": rng.random(n) < 0.5, "at": np.arange(n)}
    return pa.table(columns, schema=SCHEMA)


def split(file: bytes) -> tuple[bytes, bytes]:
    """Pages and footer of a Parquet file."""
    n = int.from_bytes(file[-8:-4], "little")
    return file[4 : -8 - n], file[-8 - n : -8]


def written(of: pa.Table, **options: object) -> bytes:
    file = io.BytesIO()
    pq.write_table(of, file, row_group_size=1_000, **options)
    return file.getvalue()


def closed(pages: bytes, footer: bytes) -> io.BytesIO:
    return io.BytesIO(MAGIC + pages + footer + len(footer).to_bytes(4, "little") + MAGIC)


@pytest.mark.parametrize("options", [{}, {"write_page_index": True}, {"use_dictionary": False, "version": "1.0"}])
@pytest.mark.parametrize("by", [1, 63, 64, 8_191, 1_000_000, 5_000_000_000])
def test_moved_by_nothing_and_back_a_footer_is_the_same(by: int, options: dict[str, object]) -> None:
    _, footer = split(written(table(2_500), **options))
    assert moved(footer, 0) == footer
    assert moved(footer, by) != footer
    assert moved(moved(footer, by), -by) == footer


@pytest.mark.parametrize("options", [{}, {"write_page_index": True}, {"use_dictionary": False, "version": "1.0"}])
def test_table_behind_other_bytes_is_read_by_its_moved_footer(options: dict[str, object]) -> None:
    expected = table(2_500)
    pages, footer = split(written(expected, **options))
    assert pq.read_table(closed(b"x" * 777 + pages, moved(footer, 777))).equals(expected)


def test_footer_of_many_columns_is_copied(tmp_path: Path) -> None:
    """A list of more than 14 elements has another head."""
    wide = pa.table({f"x{i}": [float(i)] for i in range(40)})
    pages, footer = split(written(wide))
    assert pq.read_table(closed(b"12345" + pages, moved(footer, 5))).equals(wide)


def test_what_is_no_footer_is_refused() -> None:
    with pytest.raises(ValueError, match="a Parquet footer holds no value of Thrift's type 11"):
        moved(bytes([0x1B, 0x00, 0x00]), 1)
