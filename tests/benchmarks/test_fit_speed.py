import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.fit_speed import bare_loop, drawn, main
from nelbo.records import Batch
from nelbo.schema import Column, Schema
from training.config import Config
from training.fit import fresh
from training.layout import lay_out
from training.steps import Step, steps
from training.vae import VAE

CONFIG = Config(encoder=(8,), decoder=(8,), batch_size=20, masked_share=1.0)


@pytest.fixture
def ready() -> tuple[VAE, Step]:
    """A model of five numbers, and what its first step sees."""
    numbers = np.random.default_rng(0).normal(size=(50, 5))
    batch = Batch(numbers, np.empty((50, 0), dtype=np.int64), np.arange(50), [None] * 50, {})
    schema = Schema(columns=tuple(Column(name=f"x{j}", role="field", kind="numeric") for j in range(5)))
    vae = fresh(lay_out(schema, batch), batch, CONFIG, 0)
    return vae, next(steps(vae, batch, CONFIG, 0, range(1)))


def test_the_bare_loop_learns_what_it_sees(ready: tuple[VAE, Step]) -> None:
    vae, step = ready
    before = [parameter.detach().clone() for parameter in vae.parameters()]
    bare_loop(vae, step, CONFIG, 3)
    assert not any(map(torch.equal, before, vae.parameters()))


def test_the_loop_that_draws_hides_other_fields_each_time_and_none_without_a_value(ready: tuple[VAE, Step]) -> None:
    vae, step = ready
    one, other = drawn(vae, step, CONFIG), drawn(vae, step, CONFIG)
    assert not torch.equal(one.shown, other.shown)
    assert not torch.equal(one.noise, other.noise)
    assert (one.shown <= step.observed).all()
    assert torch.equal(one.columns, vae.shown_columns(step.t, step.one_hot, one.shown))


def test_a_run_says_where_the_time_goes_and_whether_the_bar_is_met(tmp_path: Path) -> None:
    code = main(["--rows", "400", "--rounds", "3", "--steps", "10"], tmp_path)
    figures = json.loads((tmp_path / "fit_speed.json").read_text())["tables"]["synthetic"]
    assert code == (0 if figures["passes"] else 1)
    fit, bare = (figures["samples_per_s"][name] for name in ("fit", "bare loop"))
    ratios = sorted(a / b for a, b in zip(fit, bare, strict=True))
    assert figures["fit_over"]["bare loop"] == pytest.approx(ratios[1], rel=1e-3)
    assert list(figures["stages"]) == [
        *("importing", "reading", "fitting", "settling", "exporting", "checking"),
        *("calibrating", "comparing", "judging", "reporting", "writing"),
    ]
    assert "| in all |" in (tmp_path / "fit_speed.md").read_text()
