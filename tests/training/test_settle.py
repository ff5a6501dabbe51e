import math
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import minimize_scalar

from nelbo.records import Batch
from nelbo.schema import Column, Schema
from tests.training.test_vae import layout_of
from training.compact import compact
from training.config import Config
from training.fit import fit
from training.layout import lay_out
from training.prior import Exemplars, StandardNormal
from training.settle import settle
from training.vae import POSTERIOR_SCALE, VAE, ScoreGraph

Likelihood = Literal["gaussian", "laplace", "student_t"]
Numbers = NDArray[np.float64]


def batch_of(numbers: Numbers) -> Batch:
    n = len(numbers)
    return Batch(numbers, np.zeros((n, 0), dtype=np.int64), np.arange(n), [None] * n, {})


def settled(fit_part: Numbers, held_out: Numbers, likelihood: Likelihood) -> VAE:
    """A model that expects 0 of every field, so that a distance is the value itself, with its scales."""
    config = Config(likelihood=likelihood, encoder=(), decoder=(), n_exemplars=16)
    vae = VAE(layout_of(fit_part.shape[1]), config)
    with torch.no_grad():
        for parameter in vae.parameters():
            parameter.zero_()
    settle(vae, batch_of(fit_part), batch_of(held_out), config, seed=0)
    return vae


def scales(fit_part: Numbers, held_out: Numbers, likelihood: Likelihood) -> Numbers:
    vae = settled(fit_part, held_out, likelihood)
    assert vae.likelihood == likelihood
    return np.asarray(vae.log_scale.detach().exp().double().numpy())


def drawn(n: int = 3000) -> Numbers:
    """Three fields, of heavy, of exponential and of light tails, and of sizes far apart; none beyond the bend."""
    rng = np.random.default_rng(2)
    heavy = 0.2 * rng.standard_t(4, n)
    return np.stack([np.clip(heavy, -4.9, 4.9), 0.1 * rng.laplace(size=n), np.clip(rng.normal(size=n), -4.9, 4.9)], 1)


# --- scales --------------------------------------------------------------------------------------------


def test_scale_of_students_t_is_the_likeliest_one() -> None:
    expected = [stats.t.fit(column, f0=4, floc=0)[2] for column in drawn().T]
    np.testing.assert_allclose(scales(drawn(), drawn(), "student_t"), expected, rtol=1e-3)


def test_scale_of_a_gaussian_is_the_root_of_the_mean_square() -> None:
    expected = np.sqrt((drawn() ** 2).mean(axis=0))
    np.testing.assert_allclose(scales(drawn(), drawn(), "gaussian"), expected, rtol=1e-4)


def test_scale_of_laplace_is_the_mean_distance() -> None:
    expected = np.abs(drawn()).mean(axis=0)
    np.testing.assert_allclose(scales(drawn(), drawn(), "laplace"), expected, rtol=1e-4)


def test_held_out_records_decide_once_there_are_many() -> None:
    # 3,000 beside a few of a hundredth of their scale: a tenth of a percent.
    found = scales(0.01 * drawn(), drawn(), "gaussian")
    np.testing.assert_allclose(found, np.sqrt((drawn() ** 2).mean(axis=0)), rtol=2e-3)


def test_few_held_out_records_count_beside_three_fitted_ones() -> None:
    known, fresh = np.full((100, 1), 2.0), np.array([[3.0], [-4.0], [0.5]])
    # Gaussian: three times 2² and 9 + 16 + 0.25, of six. Laplace: three times 2 and 3 + 4 + 0.5, of six.
    assert scales(known, fresh, "gaussian")[0] == pytest.approx(math.sqrt((12 + 25.25) / 6), rel=1e-4)
    assert scales(known, fresh, "laplace")[0] == pytest.approx((6 + 7.5) / 6, rel=1e-4)


def test_missing_values_are_not_held_to_be_expected_ones() -> None:
    gone = drawn().copy()
    gone[::3, 0] = np.nan
    expected = np.sqrt(np.nanmean(gone**2, axis=0))
    np.testing.assert_allclose(scales(gone, gone, "gaussian"), expected, rtol=1e-4)


def test_field_that_no_held_out_record_has_keeps_the_scale_of_the_fitted_ones() -> None:
    held_out = drawn(50).copy()
    held_out[:, 1] = np.nan
    expected = np.sqrt((drawn()[:, 1] ** 2).mean())
    assert scales(drawn(), held_out, "gaussian")[1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "student_t"])
def test_scale_has_a_floor(likelihood: Likelihood) -> None:
    tiny, nothing = 1e-4 * drawn(), np.zeros((50, 3))
    assert scales(tiny, tiny, likelihood) == pytest.approx([0.05] * 3)
    assert scales(nothing, nothing, likelihood) == pytest.approx([0.05] * 3)


def test_no_other_scale_makes_held_out_records_likelier() -> None:
    """There are thousands of times as many of them as count for the fitted ones: the density's own optimum is near."""
    held_out = drawn(10_000)[:, :1]
    vae = settled(drawn()[:, :1], held_out, "student_t")
    t = torch.from_numpy(held_out).float()

    def surprise(log_scale: float) -> float:
        vae.log_scale = torch.nn.Parameter(torch.tensor([log_scale], dtype=torch.float32))
        with torch.no_grad():
            return float(vae.nll(torch.zeros(1, 1), t, torch.zeros(len(t), 0)).double().mean())

    found = float(vae.log_scale.detach()[0])
    assert found == pytest.approx(minimize_scalar(surprise, bracket=(-4.0, 0.0)).x, abs=2e-3)


# --- exemplars -----------------------------------------------------------------------------------------


def test_latents_reach_one_further_than_any_fitted_record() -> None:
    vae = settled(drawn(), drawn(), "student_t")
    furthest = torch.from_numpy(np.abs(drawn()).max(axis=0)).float() + 1
    for sign in (1.0, -1.0):
        mean, _ = vae.encode(torch.full((1, 3), sign * 1e6), torch.zeros(1, 0), torch.ones(1, 3))
        torch.testing.assert_close(mean[0], sign * furthest)


def test_model_with_exemplars_gets_them_from_the_fitted_records() -> None:
    vae = settled(drawn(), 3 * drawn(), "student_t")
    assert isinstance(vae.prior, Exemplars)
    assert vae.prior.centres.shape == (16, 3)
    # The encoder adds nothing here: a record is its own place. Halves have eleven bits.
    off = np.abs(vae.prior.centres.double().numpy()[:, None] - drawn()).max(axis=2).min(axis=1)
    assert off.max() < 5 * 2**-11


def test_surroundings_are_the_same_records_before_the_encoder() -> None:
    rng = np.random.default_rng(0)
    config = Config(encoder=(8,), decoder=(), n_exemplars=16)
    vae = VAE(layout_of(3), config)
    settle(vae, batch_of(drawn()), batch_of(rng.normal(size=(50, 3))), config, seed=0)
    assert isinstance(vae.prior, Exemplars)
    assert vae.surroundings is not None
    assert torch.equal(vae.surroundings.log_weights, vae.prior.log_weights)
    places = vae.surroundings.centres.float()
    with torch.no_grad():
        means, _ = vae.encode(places, torch.zeros(16, 0), torch.ones(16, 3))
    # Eleven bits of a place and of its code, and what the encoder makes of them.
    torch.testing.assert_close(means, vae.prior.centres.float(), rtol=0.0, atol=0.01)


def test_missing_value_counts_as_what_is_typical_of_its_field() -> None:
    """The decoder expects 0: the mean distances of held-out records are their mean sizes."""
    held_out = np.array([[1.0, 2.0, 3.0], [3.0, np.nan, 3.0], [2.0, 4.0, 3.0]])
    vae = settled(drawn(), held_out, "student_t")
    assert vae.typical_distance.tolist() == [2.0, 3.0, 3.0]
    numbers = torch.tensor([[1.0, math.nan, 1.5]], dtype=torch.float64)
    with torch.no_grad():
        evidence = ScoreGraph(vae)(numbers, torch.zeros(1, 0).long(), torch.zeros(1, 3, dtype=torch.bool))[2]
    assert float(evidence[0, 0]) == pytest.approx(math.log((1.0 + 3.0 + 1.5) / 3 + 0.01), rel=1e-6)


def test_model_with_a_standard_normal_prior_is_left_as_it_is() -> None:
    config = Config(prior="standard_normal", encoder=(), decoder=())
    vae = VAE(layout_of(3), config)
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    settle(vae, batch_of(drawn()), batch_of(drawn()), config, seed=0)
    assert isinstance(vae.prior, StandardNormal)
    assert vae.surroundings is None
    assert before.keys() == vae.state_dict().keys()
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())


# --- a density -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("likelihood", ["gaussian", "student_t"])
def test_elbo_is_a_lower_bound_of_the_log_density_and_no_loose_one(likelihood: Likelihood) -> None:
    """Three normals that correlate by 0.99; 4,000 fresh records, one in 16,000 of such bands fails by chance.

    It may lie 3 nats below. To know each field's law exactly, and nothing of how they belong together, would cost
    −½ log det R = 4.06; a posterior as wide as the noise costs log √2 a field, and the rest is for a short fit.
    """
    correlation = np.full((3, 3), 0.99) + 0.01 * np.eye(3)
    unit, middle = np.array([1.0, 50.0, 0.01]), np.array([0.0, 1000.0, -3.0])
    known, held_out, fresh = (
        middle + unit * np.random.default_rng(seed).multivariate_normal(np.zeros(3), correlation, n)
        for seed, n in ((1, 1500), (2, 200), (3, 4000))
    )
    schema = Schema(columns=tuple(Column(name=f"x{j}", role="field", kind="numeric") for j in range(3)))
    layout = lay_out(schema, batch_of(known))
    config = Config(likelihood=likelihood, encoder=(16,), decoder=(16,), steps=600)
    vae = fit(layout, batch_of(known), config, 0).vae
    vae.encoder, vae.decoder = compact(vae.encoder), compact(vae.decoder)
    settle(vae, batch_of(known), batch_of(held_out), config, 0)
    numbers, nothing = torch.from_numpy(fresh), torch.zeros(4000, 0)
    none_hidden = torch.zeros(4000, 3, dtype=torch.bool)
    with torch.no_grad():
        contributions, kl, _, _, _, mean = ScoreGraph(vae)(numbers, nothing.long(), none_hidden)
        z = mean[:, None] + POSTERIOR_SCALE * torch.randn(4000, 50, 3, generator=torch.Generator().manual_seed(0))
        by_chance = vae.nll(z, vae.features(numbers)[:, None], nothing[:, None]).sum(dim=2).mean(dim=1)
    # The transform is affine here, and its slope belongs to the density of a record.
    assert np.abs((fresh - layout.location) / layout.scale).max() < 5
    slope = np.log(layout.scale * layout.width).sum()
    truth = stats.multivariate_normal(middle, correlation * np.outer(unit, unit)).logpdf(fresh)
    for nll in (contributions.sum(dim=1), by_chance):
        gap = truth + (nll + kl[:, 0]).double().numpy() + slope
        assert -4 * gap.std() / math.sqrt(4000) < gap.mean() < 3
    # Sigma points are no more than a twentieth of a nat off, in the mean.
    assert float((contributions.sum(dim=1) - by_chance).mean()) == pytest.approx(0, abs=0.05)
