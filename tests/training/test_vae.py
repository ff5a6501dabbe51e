import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from torch import Tensor

from nelbo.schema import Column, Schema
from training.config import Config
from training.layout import FURTHEST, Layout, bend
from training.vae import VAE, ScoreGraph, bent, kl_to_standard_normal, numeric_nll, unbent


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def layout_of(n_numeric: int, n_codes: tuple[int, ...] = (), min_scale: float = 1e-6) -> Layout:
    """Numeric fields that are standard already, and categorical ones with so many categories."""
    numeric = [Column(name=f"x{i}", role="field", kind="numeric") for i in range(n_numeric)]
    coded = [
        Column(name=f"c{i}", role="field", kind="categorical", categories=tuple(f"v{j}" for j in range(n)))
        for i, n in enumerate(n_codes)
    ]
    ones, zeros = np.ones(n_numeric), np.zeros(n_numeric)
    return Layout(Schema(columns=(*numeric, *coded)), zeros, ones, zeros, ones, np.full(n_numeric, min_scale))


def linear_gaussian(n_fields: int, n_latents: int) -> VAE:
    torch.manual_seed(0)
    config = Config(likelihood="gaussian", hidden=(), n_latents=n_latents, shared_scale=True)
    vae = VAE(layout_of(n_fields), config).double()
    vae.furthest_seen = math.inf
    return vae


def closed_form_loss(vae: VAE, t: Tensor) -> Tensor:
    """−ELBO per record of a linear decoder: E‖t − Wz − b‖² = ‖t − Wμ − b‖² + Σ_l σ_l² ‖W_l‖²."""
    blank = t[:, :0]
    mean, log_variance = vae.encode(t, blank, blank, torch.ones_like(t))
    weight = vae.decoder[0].weight
    assert isinstance(weight, Tensor)
    distance = (t - vae.decode(mean)[0]).square().sum(dim=1) + log_variance.exp() @ weight.square().sum(dim=0)
    log_scale = vae.log_scale[0]
    n_fields = t.shape[1]
    nll = 0.5 * distance / (2 * log_scale).exp() + n_fields * (log_scale + 0.5 * math.log(2 * math.pi))
    return (nll + kl_to_standard_normal(mean, log_variance).sum(dim=1)).mean()


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
        mean, log_variance = vae.encode(t, blank, blank, shown)
        nll = vae.expected_nll(mean, log_variance, t, blank, blank).sum(dim=1)
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


def test_many_latents_are_decoded_at_the_posterior_mean() -> None:
    vae = linear_gaussian(3, 17)
    mean = torch.randn(5, 17).double()
    torch.testing.assert_close(vae.sigma_points(mean, torch.zeros_like(mean)), mean[:, None])


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "student_t"])
def test_numeric_likelihood_integrates_to_one(likelihood: str) -> None:
    # Substitution z = sinh(s) reaches far into the tails; Student's t with one degree needs it.
    s = torch.linspace(-20, 20, 200_001, dtype=torch.float64)
    density = (-numeric_nll(likelihood, torch.sinh(s))).exp() * torch.cosh(s)
    assert float(torch.trapezoid(density, s)) == pytest.approx(1, abs=1e-6)


def test_categorical_likelihoods_sum_to_one() -> None:
    torch.manual_seed(0)
    vae = VAE(layout_of(1, (3,)), Config(hidden=(8,), n_latents=2))
    codes = torch.arange(5)[:, None]  # three categories, rare, unseen
    z = torch.randn(1, 2).expand(5, 2)
    with torch.no_grad():
        nll = vae.nll(z, torch.zeros(5, 1), torch.zeros(5, 0), vae.one_hot(codes))
    assert float((-nll[:, 1]).exp().sum()) == pytest.approx(1, abs=1e-5)


def test_bend_is_undone() -> None:
    u = torch.tensor([0.0, 4.9, -5.0, 5.1, 1e6, -1e30], dtype=torch.float64)
    torch.testing.assert_close(unbent(bent(u)), u, rtol=1e-9, atol=0)


def test_bend_of_arrays_and_of_tensors_is_the_same() -> None:
    u = np.array([0.0, 4.9, -5.0, 5.1, 1e6, -FURTHEST])
    np.testing.assert_allclose(bent(torch.from_numpy(u)).numpy(), bend(u))


def test_value_further_out_is_never_less_surprising() -> None:
    torch.manual_seed(0)
    graph = ScoreGraph(VAE(layout_of(1), Config(hidden=(8,), n_latents=2)))
    x = torch.tensor([[10.0], [20.0], [1e3], [1e9], [1e38], [1e300]], dtype=torch.float64)
    nothing = torch.zeros(6, 1, dtype=torch.bool)
    contributions = graph(x, torch.zeros(6, 0, dtype=torch.int64), nothing)[0][:, 0]
    assert bool((contributions.diff() >= 0).all())
    assert bool((contributions[:5].diff() > 0).all())


def test_hidden_value_is_scored_as_a_missing_one() -> None:
    torch.manual_seed(0)
    graph = ScoreGraph(VAE(layout_of(2, (3,)), Config(hidden=(8,), n_latents=2)))
    numbers = torch.tensor([[1.0, 2.0], [math.nan, 2.0]], dtype=torch.float64)
    codes = torch.tensor([[1], [-1]])
    hidden = torch.tensor([[True, False, True], [False, False, False]])
    for output in graph(numbers, codes, hidden):
        torch.testing.assert_close(output[0], output[1])


def test_kl_to_the_standard_normal_is_that_of_torch_distributions() -> None:
    mean, log_variance = torch.tensor([[0.3, -2.0]]), torch.tensor([[0.1, -3.0]])
    q = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(kl_to_standard_normal(mean, log_variance), expected)
