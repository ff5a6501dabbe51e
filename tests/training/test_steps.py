import numpy as np
import pytest
import torch
from torch import Tensor

from nelbo.records import Batch
from nelbo.schema import Column, Schema
from nelbo.structs import MISSING
from training.config import Config
from training.layout import lay_out
from training.steps import Step, steps
from training.vae import VAE

N, SIZE = 100, 30


@pytest.fixture
def batch() -> Batch:
    """Record i has the number i; its category is missing in every fourth record."""
    codes = np.where(np.arange(N) % 4 == 0, MISSING, np.arange(N) % 2)[:, None]
    numbers = np.stack([np.arange(N, dtype=np.float64), np.ones(N)], axis=1)
    return Batch(numbers, codes, np.arange(N), [None] * N, {})


def model(batch: Batch, config: Config) -> VAE:
    numbers = (Column(name=name, role="field", kind="numeric") for name in ("x", "y"))
    category = Column(name="c", role="field", kind="categorical", categories=("a", "b"))
    return VAE(lay_out(Schema(columns=(*numbers, category)), batch), config)


def seen(batch: Batch, which: range, seed: int = 0, **settings: object) -> list[Step]:
    config = Config(encoder=(4,), decoder=(4,), batch_size=SIZE).model_copy(update=settings)
    return list(steps(model(batch, config), batch, config, seed, which))


def tensors(step: Step) -> list[Tensor]:
    return [step.t, step.one_hot, step.observed, step.shown, step.columns, step.noise]


def test_a_step_sees_the_same_wherever_the_fit_goes_on_from(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = seen(batch, range(12))
    monkeypatch.setattr("training.steps._CELLS", 1)  # a step at a time
    resumed = seen(batch, range(5, 12))
    assert len(resumed) == 7
    for one, other in zip(whole[5:], resumed, strict=True):
        assert all(map(torch.equal, tensors(one), tensors(other)))


def test_every_record_is_seen_at_most_once_an_epoch_and_in_another_order_in_the_next(batch: Batch) -> None:
    epochs = [torch.cat([step.t[:, 0] for step in seen(batch, range(first, first + 3))]) for first in (0, 3)]
    assert [len(torch.unique(epoch)) for epoch in epochs] == [3 * SIZE, 3 * SIZE]
    assert not torch.equal(*epochs)


def test_a_table_of_fewer_records_than_a_batch_is_seen_whole(batch: Batch) -> None:
    (step,) = seen(batch, range(1), batch_size=1000)
    assert len(torch.unique(step.t[:, 0])) == N


def test_a_quarter_of_the_masked_records_values_is_hidden(batch: Batch) -> None:
    some = seen(batch, range(600), masked_share=0.5)
    shown, observed = torch.cat([step.shown for step in some]), torch.cat([step.observed for step in some])
    assert (shown <= observed).all()
    # Half of the records, at a rate of 1/4 in the mean: 1/8 of about 50,000 values, a standard deviation of 0.002.
    assert float(1 - shown.sum() / observed.sum()) == pytest.approx(1 / 8, abs=0.01)


def test_nothing_is_hidden_where_no_record_is_masked(batch: Batch) -> None:
    assert all(torch.equal(step.shown, step.observed) for step in seen(batch, range(3), masked_share=0.0))


def test_the_wanted_share_of_categories_becomes_unseen_and_missing_ones_stay_missing(batch: Batch) -> None:
    some = seen(batch, range(600), unseen_share=0.1)
    one_hot = torch.cat([step.one_hot for step in some])
    has_category = torch.cat([step.observed[:, 2] for step in some])
    assert torch.equal(one_hot.sum(dim=1), has_category)
    # 0.1 of about 13,500 values, a standard deviation of 0.003.
    assert float(one_hot[:, -1].sum() / has_category.sum()) == pytest.approx(0.1, abs=0.015)


@pytest.mark.parametrize(("prior", "variance"), [("exemplars", 1 / 3), ("standard_normal", 1.0)])
def test_noise_of_exemplars_has_every_strength_up_to_1(batch: Batch, prior: str, variance: float) -> None:
    noise = torch.cat([step.noise for step in seen(batch, range(600), prior=prior)])
    # E[u²] = 1/3 for u uniform within 0 and 1.
    assert float(noise.square().mean()) == pytest.approx(variance, rel=0.05)


def test_another_seed_draws_something_else(batch: Batch) -> None:
    (one,), (other,) = (seen(batch, range(1), seed) for seed in (0, 1))
    assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.t, other.t)
