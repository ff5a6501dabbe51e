import json
from fractions import Fraction
from math import inf
from pathlib import Path

import numpy as np
import pytest

from benchmarks.independent import Case, Differences, adjusted_p_value, main, plain_p_values


def test_plain_p_values_are_counted_by_hand() -> None:
    case = Case(np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0, 3.5, 0.0]))
    assert plain_p_values(case).tolist() == [4 / 5, 1 / 5, 1.0]


def test_adjusted_p_value_is_the_smallest_rate_that_flags() -> None:
    # p-values .01, .02, .6 and .9; of the second: .02 · 4/2.
    counts = {99: np.bincount([1, 2, 60, 90], minlength=101)}
    assert adjusted_p_value(counts, Fraction(2, 100), 0.04) == pytest.approx(0.04, abs=1e-15)
    assert adjusted_p_value(counts, Fraction(2, 100), 0.04 + 1e-11) == inf


@pytest.mark.parametrize(("p_value", "adjusted", "n_otherwise"), [(1e-11, 0.0, 0), (0.0, inf, 0), (0.0, 0.0, 1)])
def test_any_difference_is_no_agreement(p_value: float, adjusted: float, n_otherwise: int) -> None:
    assert Differences(1e-12, 1e-12, 10, 0).agree
    assert not Differences(p_value, adjusted, 10, n_otherwise).agree


def test_thirty_random_requests_agree(tmp_path: Path) -> None:
    assert main(["--cases", "30"], tmp_path) == 0
    found = json.loads((tmp_path / "independent.json").read_text())
    assert found["agree"]
    assert found["n_decided"] > 3_000
