"""What a fitted network still needs before it is a density: exemplars, and scales that hold for fresh records."""

import torch
from torch import Tensor

from nelbo.records import Batch
from training.config import Config
from training.layout import MIN_SCALE
from training.prior import chosen_exemplars
from training.vae import DEGREES, POSTERIOR_SCALE, VAE

_MOST_ENCODED = 100_000  # records, of which exemplars are chosen; chosen
_MOST_DECODED = 10_000
_PSEUDO_RECORDS = 3.0  # weight of the fitted records' scale beside few held-out ones; chosen
_REACH = 1.0  # beyond the furthest fitted record: as far as the noise of the fit went
_N_ROUNDS = 30  # of the fixed point of a scale; it moves by less than a thousandth long before


def settle(vae: VAE, fit_part: Batch, held_out: Batch, config: Config, seed: int) -> None:
    """Gives a model with exemplars its prior and its scales; any other one has them from the fit.

    Args:
        vae: fitted; changed in place.
        fit_part: what it was fitted on, where the exemplars come from.
        held_out: records that it was not fitted on: a network restores its own better than fresh ones.
        config: of the fit.
        seed: of the choice.
    """
    if not vae.with_exemplars:
        return
    with torch.no_grad():
        means = vae.encode(*vae.read(fit_part, _MOST_ENCODED))[0]
        vae.reach = means.abs().amax(dim=0) + _REACH
        vae.prior = chosen_exemplars(means, POSTERIOR_SCALE**2, config.n_exemplars, seed)
        scale = _scales(vae, fit_part, held_out, config.likelihood)
        vae.likelihood, vae.log_scale = config.likelihood, torch.nn.Parameter(scale.log())


def _scales(vae: VAE, fit_part: Batch, held_out: Batch, likelihood: str) -> Tensor:
    """The likeliest scale of each numeric feature's distance from what the decoder expects, (D,)."""
    known = _fixed_point(*_squares(vae, fit_part), torch.zeros(vae.n_features), likelihood)
    return _fixed_point(*_squares(vae, held_out), known, likelihood)


def _squares(vae: VAE, batch: Batch) -> tuple[Tensor, Tensor]:
    """Squared distances, over the posterior, and which of them count, both (n, D)."""
    t, one_hot, observed = vae.read(batch, _MOST_DECODED)
    mean, log_variance = vae.encode(t, one_hot, observed)
    z = vae.sigma_points(mean, log_variance)
    expected = vae.decode(z.flatten(0, 1))[0].reshape(*z.shape[:2], vae.n_features)
    return (t[:, None] - expected).square().mean(dim=1), observed[:, vae.field_of_number][:, vae.owner]


def _fixed_point(squares: Tensor, counts: Tensor, known: Tensor, likelihood: str) -> Tensor:
    """Maximum likelihood of a scale, with some records of scale `known` put beside.

    Student's t is a normal whose variance varies: each round weighs a square by how much of it is tail.
    """
    beside = torch.where(known > 0, _PSEUDO_RECORDS, 0.0)
    total = (counts.sum(dim=0) + beside).clamp_min(1e-9)
    if likelihood == "laplace":
        return ((squares.sqrt() * counts).sum(dim=0) / total + known * beside / total).clamp_min(MIN_SCALE)
    variance = ((squares * counts).sum(dim=0) + known.square() * beside) / total
    for _ in range(_N_ROUNDS if likelihood == "student_t" else 0):
        variance = variance.clamp_min(MIN_SCALE**2)
        weight = (DEGREES + 1) / (DEGREES + squares / variance)
        variance = ((weight * squares * counts).sum(dim=0) + known.square() * beside) / total
    return variance.sqrt().clamp_min(MIN_SCALE)
