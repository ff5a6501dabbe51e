"""What a fitted network still needs before it is a density: exemplars, and scales that hold for fresh records."""

from dataclasses import replace

import torch
from torch import Tensor

from nelbo.records import Batch
from training.config import Config
from training.layout import MIN_SCALE
from training.prior import Chosen, chosen_exemplars, mixture_around
from training.vae import DEGREES, POSTERIOR_SCALE, VAE, columns_of, evenly

_MOST_ENCODED = 100_000  # records, of which exemplars are chosen; chosen
_MOST_DECODED = 10_000
_PSEUDO_RECORDS = 3.0  # weight of the fitted records' scale beside few held-out ones; chosen
# How far an exemplar's own distance to its neighbours counts in its width. Among latents half of it ranks 29 tables
# best, among records all of it.
_OWN_OF_LATENTS, _OWN_OF_RECORDS = 0.5, 1.0
_REACH = 1.0  # beyond the furthest fitted record: as far as the noise of the fit went
_N_ROUNDS = 30  # of the fixed point of a scale; it moves by less than a thousandth long before


def settle(vae: VAE, fit_part: Batch, held_out: Batch, config: Config, seed: int) -> Chosen | None:
    """Gives a model with exemplars its prior and its scales; any other one has them from the fit.

    Every model gets what a missing value counts as in the residual.

    Args:
        vae: fitted; changed in place.
        fit_part: what it was fitted on, where the exemplars come from.
        held_out: records that it was not fitted on: a network restores its own better than fresh ones.
        config: of the fit.
        seed: of the choice.

    Returns:
        Which records of `fit_part` are exemplars; None for a model without.
    """
    chosen = None
    with torch.no_grad():
        if vae.with_exemplars:
            chosen = give_exemplars(vae, fit_part, config, seed)
            scale = _scales(vae, fit_part, held_out, config.likelihood)
            vae.likelihood, vae.log_scale = config.likelihood, torch.nn.Parameter(scale.log())
        vae.typical_distance = _typical_distances(vae, held_out)
    return chosen


@torch.no_grad()
def give_exemplars(vae: VAE, records: Batch, config: Config, seed: int) -> Chosen:
    """Chooses exemplars among records, and makes of them the prior of latents and the surroundings of records.

    The records also say how far latents reach.

    Args:
        vae: with exemplars; changed in place.
        records: of the table.
        config: of the fit.
        seed: of the choice.

    Returns:
        Which of them they are.
    """
    read = vae.read(records, _MOST_ENCODED)
    means = vae.encode(*read)[0]
    vae.reach = means.abs().amax(dim=0) + _REACH
    chosen = chosen_exemplars(means, config.n_exemplars, seed)
    centres, places = means[chosen.records], vae.place(*read)[chosen.records]
    vae.prior = mixture_around(centres, chosen.weights, POSTERIOR_SCALE**2, _OWN_OF_LATENTS)
    vae.surroundings = mixture_around(places, chosen.weights, 0.0, _OWN_OF_RECORDS)
    encoded = torch.arange(len(records))[evenly(len(records), _MOST_ENCODED)]
    return replace(chosen, records=encoded[chosen.records])


def _typical_distances(vae: VAE, held_out: Batch) -> Tensor:
    """Mean distance of each value from what the decoder restores, (D + C,); 0 where there is no value."""
    t, one_hot, observed = vae.read(held_out, _MOST_DECODED)
    restored = vae.decode(vae.encode(t, one_hot, observed)[0])
    counted = vae.counted(observed)
    return (vae.distances(restored, t, one_hot) * counted).sum(dim=0) / counted.sum(dim=0).clamp_min(1)


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
    return (t[:, None] - expected).square().mean(dim=1), columns_of(observed, vae.field_of_feature)


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
