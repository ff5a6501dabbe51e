from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.score_files import _page
from benchmarks.session_alone import numbers


def test_bare_session_reads_records_from_the_row_group_on_in_which_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": np.arange(90.0), "b": -np.arange(90.0)}), path, row_group_size=30)
    assert numbers(path, 40, 20).tolist() == [[float(i), -float(i)] for i in range(30, 50)]


@pytest.mark.parametrize(("ratio", "peak_gb", "said"), [(0.5, 1.0, "yes"), (0.49, 0.3, "no"), (0.9, 1.01, "no")])
def test_page_says_whether_a_figure_is_reached(ratio: float, peak_gb: float, said: str) -> None:
    of: dict[str, object] = {"n": 10, "us_a_record": 1.0, "session_alone_us": 1.0, "ratio": ratio, "peak_gb": peak_gb}
    assert _page({"none": of}).splitlines()[4].endswith(f"| {said} |")
