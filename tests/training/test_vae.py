import math
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from torch import Tensor

from nelbo.schema import Column, Schema
from training.config import Config
from training.layout import FURTHEST, Layout, bend
from training.prior import kl_to_standard_normal
from training.vae import POSTERIOR_SCALE, VAE, ScoreGraph, bent, numeric_nll, unbent

UNSEEN = 0.07  # probability of an unseen category


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layout_of(n_numeric: int, n_codes: tuple[int, ...] = ()) -> Layout:
    """Numeric fields that are standard already, and categorical ones with so many categories."""
    numeric = [Column(name=f"x{i}", role="field", kind="numeric") for i in range(n_numeric)]
    coded = [
        Column(name=f"c{i}", role="field", kind="categorical", categories=tuple(f"v{j}" for j in range(n)))
        for i, n in enumerate(n_codes)
    ]
    ones, zeros = np.ones(n_numeric), np.zeros(n_numeric)
    return Layout(
        schema=Schema(columns=(*numeric, *coded)),
        location=zeros,
        scale=ones,
        centre=zeros,
        width=ones,
        unseen=np.full(len(n_codes), UNSEEN),
    )


def linear_gaussian(n_fields: int, n_latents: int) -> VAE:
    torch.manual_seed(0)
    config = Config(
        prior="standard_normal", likelihood="gaussian", encoder=(), decoder=(), n_latents=n_latents, shared_scale=True
    )
    vae = VAE(layout_of(n_fields), config).double()
    vae.furthest_seen = math.inf
    return vae


def closed_form_loss(vae: VAE, t: Tensor) -> Tensor:
    """−ELBO per record of a linear decoder: E‖t − Wz − b‖² = ‖t − Wμ − b‖² + Σ_l σ_l² ‖W_l‖²."""
    blank = t[:, :0]
    mean, log_variance = vae.encode(t, blank, torch.ones_like(t))
    weight = vae.decoder[0].weight
    assert isinstance(weight, Tensor)
    distance = (t - vae.decode(mean)[0]).square().sum(dim=1) + log_variance.exp() @ weight.square().sum(dim=0)
    log_scale = vae.log_scale[0]
    n_fields = t.shape[1]
    nll = 0.5 * distance / (2 * log_scale).exp() + n_fields * (log_scale + 0.5 * math.log(2 * math.pi))
    loss: Tensor = (nll + kl_to_standard_normal(mean, log_variance).sum(dim=1)).mean()
    return loss


def fitted_elbo(vae: VAE, t: Tensor) -> float:
    optimiser = torch.optim.LBFGS(
        vae.parameters(), max_iter=3000, max_eval=4000, tolerance_grad=1e-9, tolerance_change=0,
        history_size=40, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> float:
        optimiser.zero_grad()
        loss = closed_form_loss(vae, t)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    shown, blank = torch.ones_like(t), t[:, :0]
    with torch.no_grad():
        mean, log_variance = vae.encode(t, blank, shown)
        nll = vae.expected_nll(mean, log_variance, t, blank)[0].sum(dim=1)
        return -float((nll + kl_to_standard_normal(mean, log_variance).sum(dim=1)).mean())


def log_likelihood_of_probabilistic_pca(x: np.ndarray[tuple[int, int], np.dtype[np.float64]], n_latents: int) -> float:
    """Tipping & Bishop, Probabilistic principal component analysis, 1999, at the maximum; mean over records, nats."""
    n_fields = x.shape[1]
    eigenvalues = np.linalg.eigvalsh(np.cov(x.T, bias=True))[::-1]
    noise = eigenvalues[n_latents:].mean()
    log_determinant = np.log(eigenvalues[:n_latents]).sum() + (n_fields - n_latents) * math.log(noise)
    return -0.5 * float(n_fields * math.log(2 * math.pi) + log_determinant + n_fields)


@pytest.mark.parametrize(
    ("load", "n_latents", "known"),
    [(load_wine, 4, -15.482125), (load_breast_cancer, 6, -22.385466), (load_digits, 16, -70.914930)],
    ids=["wine", "breast_cancer", "digits"],
)
def test_linear_gaussian_vae_reaches_the_likelihood_of_probabilistic_pca(load, n_latents, known) -> None:  # type: ignore[no-untyped-def]
    x = load().data
    x = x[:, x.std(axis=0) > 0]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    expected = log_likelihood_of_probabilistic_pca(x, n_latents)
    assert expected == pytest.approx(known, abs=2e-6)
    assert fitted_elbo(linear_gaussian(x.shape[1], n_latents), torch.from_numpy(x)) == pytest.approx(expected, abs=1e-5)


def test_sigma_points_have_the_mean_and_variance_of_the_posterior() -> None:
    vae = linear_gaussian(3, 4)
    mean, log_variance = torch.randn(5, 4).double(), torch.randn(5, 4).double()
    points = vae.sigma_points(mean, log_variance)
    assert points.shape == (5, 8, 4)
    torch.testing.assert_close(points.mean(dim=1), mean)
    torch.testing.assert_close(points.var(dim=1, unbiased=False), log_variance.exp())


def test_sigma_points_along_any_orthonormal_basis_have_the_covariance_of_the_posterior() -> None:
    vae = linear_gaussian(3, 4)
    vae.directions = 2 * torch.linalg.qr(torch.randn(4, 4).double()).Q  # √4 long each
    mean, log_variance = torch.randn(1, 4).double(), torch.randn(1, 4).double()
    off = vae.sigma_points(mean, log_variance)[0] - mean
    torch.testing.assert_close(off.mean(dim=0), torch.zeros(4).double())
    torch.testing.assert_close(off.T @ off / 8, log_variance[0].exp().diag())


@pytest.mark.parametrize(("prior", "n_latents"), [("standard_normal", 17), ("exemplars", 5)])
def test_two_directions_stand_for_many_latents(prior: Literal["standard_normal", "exemplars"], n_latents: int) -> None:
    vae = VAE(layout_of(n_latents), Config(prior=prior, encoder=(), decoder=(), n_latents=n_latents))
    mean = torch.randn(5, n_latents)
    off = vae.sigma_points(mean, torch.full_like(mean, math.log(9.0))) - mean[:, None]
    assert off.shape == (5, 4, n_latents)
    torch.testing.assert_close(off.mean(dim=1), torch.zeros(5, n_latents), atol=1e-5, rtol=0)
    # As far from the mean as the posterior reaches: E‖z − m‖² = 9 for each latent.
    torch.testing.assert_close(off.square().sum(dim=2), torch.full((5, 4), 9.0 * n_latents))
    across = off[:, :2] @ off[:, :2].mT
    torch.testing.assert_close(across, (9.0 * n_latents) * torch.eye(2).expand(5, 2, 2), atol=1e-4, rtol=0)


def test_latents_in_use_alone_are_followed() -> None:
    vae = linear_gaussian(3, 4)
    mean, log_variance = torch.zeros(1, 4), torch.tensor([[0.3, 0.0, -1.0, 0.5]])
    vae.take_expectation_along([0, 2])
    variance = vae.sigma_points(mean, log_variance).var(dim=1, unbiased=False)
    torch.testing.assert_close(variance, log_variance.exp() * torch.tensor([1.0, 0.0, 1.0, 0.0]))
    vae.take_expectation_along([])
    torch.testing.assert_close(vae.sigma_points(mean, log_variance), mean[:, None])


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "student_t", "cauchy"])
def test_numeric_likelihood_integrates_to_one(likelihood: str) -> None:
    # Substitution z = sinh(s) reaches far into the tails; Cauchy's needs it.
    s = torch.linspace(-20, 20, 200_001, dtype=torch.float64)
    density = (-numeric_nll(likelihood, torch.sinh(s))).exp() * torch.cosh(s)
    assert float(torch.trapezoid(density, s)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("likelihood", "law"),
    [
        ("gaussian", stats.norm(scale=0.7)),
        ("laplace", stats.laplace(scale=0.7)),
        ("student_t", stats.t(4, scale=0.7)),
        ("cauchy", stats.cauchy(scale=0.7)),
    ],
)
def test_numeric_likelihood_is_that_of_scipy(likelihood: str, law: Any) -> None:
    x = np.array([-30.0, -1.0, 0.0, 0.2, 4.0])
    found = numeric_nll(likelihood, torch.from_numpy(x / 0.7)) + math.log(0.7)
    np.testing.assert_allclose(found.numpy(), -law.logpdf(x), rtol=1e-9)


def coded(n_categories: int, z: Tensor) -> Tensor:
    """NLL of each code of one field (categories, rare, unseen), given one place among the latents."""
    torch.manual_seed(0)
    vae = VAE(layout_of(1, (n_categories,)), Config(encoder=(8,), decoder=(8,), n_latents=2))
    vae.decoder[-1].weight.data.mul_(100.0)  # type: ignore[operator]  # tells categories apart
    one_hot = vae.one_hot(torch.arange(n_categories + 2)[:, None])
    with torch.no_grad():
        return vae.nll(z.expand(len(one_hot), 2), torch.zeros(len(one_hot), 1), one_hot)[:, 1]


@pytest.mark.parametrize("n_categories", [1, 3])
@pytest.mark.parametrize("z", [(0.3, -1.0), (9.0, 9.0)])
def test_categorical_likelihoods_sum_to_one(n_categories: int, z: tuple[float, float]) -> None:
    assert float((-coded(n_categories, torch.tensor([z]))).exp().sum()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("z", [(0.3, -1.0), (9.0, 9.0)])
def test_unseen_category_costs_its_probability_whatever_the_record(z: tuple[float, float]) -> None:
    nll = coded(3, torch.tensor([z]))
    assert float(nll[-1]) == pytest.approx(-math.log(UNSEEN), rel=1e-6)
    assert float(nll[:-1].std()) > 0.1  # while the others depend on it


def test_bend_is_undone() -> None:
    u = torch.tensor([0.0, 4.9, -5.0, 5.1, 1e6, -1e30], dtype=torch.float64)
    torch.testing.assert_close(unbent(bent(u)), u, rtol=1e-9, atol=0)


def test_bend_of_arrays_and_of_tensors_is_the_same() -> None:
    u = np.array([0.0, 4.9, -5.0, 5.1, 1e6, -FURTHEST])
    np.testing.assert_allclose(bent(torch.from_numpy(u)).numpy(), bend(u))


def test_value_further_out_is_never_less_surprising() -> None:
    torch.manual_seed(0)
    graph = ScoreGraph(VAE(layout_of(1), Config(encoder=(8,), decoder=(8,), n_latents=2)))
    x = torch.tensor([[10.0], [20.0], [1e3], [1e9], [1e38], [1e300]], dtype=torch.float64)
    nothing = torch.zeros(6, 1, dtype=torch.bool)
    contributions = graph(x, torch.zeros(6, 0, dtype=torch.int64), nothing)[0][:, 0]
    assert bool((contributions.diff() >= 0).all())
    assert bool((contributions[:5].diff() > 0).all())


def test_distance_of_a_number_is_its_own_and_of_a_category_what_its_probability_lacks() -> None:
    vae = VAE(layout_of(1, (2,)), Config(encoder=(8,), decoder=(8,), n_latents=2))
    # Logits of two categories, of rare ones and of unseen ones, which take no part in the others' probabilities.
    logits = torch.tensor([[math.log(2.0), math.log(1.0), math.log(1.0), 9.0]])
    one_hot = vae.one_hot(torch.arange(4)[:, None])
    restored = (torch.full((4, 1), 0.25), logits.expand(4, 4))
    found = vae.distances(restored, torch.full((4, 1), -1.0), one_hot)
    torch.testing.assert_close(found, torch.tensor([[1.25, 0.5], [1.25, 0.75], [1.25, 0.75], [1.25, 1.0]]))


def test_hidden_value_is_scored_as_a_missing_one() -> None:
    torch.manual_seed(0)
    graph = ScoreGraph(VAE(layout_of(2, (3,)), Config(encoder=(8,), decoder=(8,), n_latents=2)))
    numbers = torch.tensor([[1.0, 2.0], [math.nan, 2.0]], dtype=torch.float64)
    codes = torch.tensor([[1], [-1]])
    hidden = torch.tensor([[True, False, True], [False, False, False]])
    for output in graph(numbers, codes, hidden):
        torch.testing.assert_close(output[0], output[1])


@pytest.mark.parametrize("at", [0.0, 3.0, 1e9])
def test_posterior_beside_exemplars_lies_at_the_record_and_has_one_width(at: float) -> None:
    torch.manual_seed(0)
    vae = VAE(layout_of(2), Config(encoder=(8,), decoder=(8,)))
    with torch.no_grad():
        mean, log_variance = vae.encode(torch.full((1, 2), at), torch.zeros(1, 0), torch.ones(1, 2))
    torch.testing.assert_close((0.5 * log_variance).exp(), torch.full((1, 2), POSTERIOR_SCALE))
    # The record itself, seen no further out than 10, and a correction that starts small.
    assert float((mean - min(at, 10.0)).abs().max()) < 1.0
    assert float((mean - min(at, 10.0)).abs().max()) > 0.0


def test_kl_to_the_standard_normal_is_that_of_torch_distributions() -> None:
    mean, log_variance = torch.tensor([[0.3, -2.0]]), torch.tensor([[0.1, -3.0]])
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected)
