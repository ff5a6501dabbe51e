"""What the steps of a fit see: records, and what is drawn for them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nelbo.records import Batch
from training.config import Config
from training.vae import VAE

# Cells of the records that are made ready at once: few enough for a processor's cache, enough to spare calls.
# From 2^18 to 2^20 a fit took the same time; a step at a time, 12 % more (2026-11-25).
_CELLS = 2**19


@dataclass(frozen=True)
class Step:
    """The m records of a step; letters as in `training.vae`.

    Attributes:
        t: shape (m, D), features of numbers.
        one_hot: shape (m, K), codes, some of them made "unseen".
        observed: shape (m, F), 1 where a field has a value.
        shown: shape (m, F), 1 where the encoder sees it, too.
        columns: shape (m, D + K), what it sees as one vector.
        noise: shape (m, L), of the latents: standard normal, times a strength of each record's own, up to 1, where
            the model has exemplars.
    """

    t: Tensor
    one_hot: Tensor
    observed: Tensor
    shown: Tensor
    columns: Tensor
    noise: Tensor


def steps(vae: VAE, batch: Batch, config: Config, seed: int, which: range) -> Iterator[Step]:
    """What some steps see, in order.

    Every draw depends on seed and step alone, so that a resumed fit goes on as if it had never stopped. Several steps
    are made ready at once, on the model's device: a step by itself would spend a tenth of its time on small calls, and
    on another device wait for its records.

    Args:
        vae: to be fitted.
        batch: the records.
        config: of the fit.
        seed: of the fit.
        which: of the steps.
    """
    device = vae.turn.device
    size = min(len(batch), config.batch_size)
    values, codes = torch.from_numpy(batch.numbers).to(device), torch.from_numpy(batch.codes).to(device)
    unseen = torch.tensor([n - 1 for _, n in vae.code_ranges], dtype=torch.int64, device=device)
    at_once = max(1, _CELLS // (size * (vae.n_features + vae.n_codes)))
    for first in range(0, len(which), at_once):
        some = which[first : first + at_once]
        rows = torch.from_numpy(_rows(len(batch), size, seed, some)).to(device)
        drawn = _drawn(vae, codes.shape[1], size, seed, some)
        ready = _ready(vae, values.index_select(0, rows), codes.index_select(0, rows), unseen, config, drawn)
        yield from map(Step, *(torch.split(tensor, size) for tensor in ready))


@dataclass(frozen=True)
class _Drawn:
    """For n records of F fields, C of them coded; uniform within 0 and 1 but for `noise`, which is as `Step` has it.

    Attributes:
        unseen: shape (n, C).
        rate: shape (n, 1).
        masked: shape (n, 1).
        hidden: shape (n, F).
        noise: shape (n, L).
    """

    unseen: Tensor
    rate: Tensor
    masked: Tensor
    hidden: Tensor
    noise: Tensor


def _drawn(vae: VAE, n_coded: int, size: int, seed: int, some: range) -> _Drawn:
    device, n, widths = vae.turn.device, len(some) * size, [n_coded, 1, 1, len(vae.to_schema_order)]
    uniform = torch.empty(len(some), size * sum(widths), device=device)
    noise = torch.empty(len(some), size, vae.n_latents, device=device)
    strength = torch.empty(len(some), size, 1, device=device)
    for i, step in enumerate(some):
        generator = torch.Generator(device).manual_seed(seed * 1_000_003 + step)
        uniform[i].uniform_(generator=generator)
        noise[i].normal_(generator=generator)
        strength[i].uniform_(generator=generator)
    if vae.with_exemplars:
        # Noise of every strength up to 1: the decoder learns to lead back from near as from far.
        noise *= strength
    parts = torch.split(uniform, [size * width for width in widths], dim=1)
    unseen, rate, masked, hidden = (part.reshape(n, width) for part, width in zip(parts, widths, strict=True))
    return _Drawn(unseen, rate, masked, hidden, noise.flatten(0, 1))


def _ready(
    vae: VAE, values: Tensor, codes: Tensor, unseen: Tensor, config: Config, drawn: _Drawn
) -> tuple[Tensor, ...]:
    """The tensors of `Step`, of some steps' records."""
    t, observed = vae.features(values), vae.observed(values, codes).float()
    one_hot = vae.one_hot(torch.where((drawn.unseen < config.unseen_share) & (codes >= 0), unseen, codes))
    shown = observed * ~((drawn.hidden < drawn.rate / 2) & (drawn.masked < config.masked_share))
    return t, one_hot, observed, shown, vae.shown_columns(t, one_hot, shown), drawn.noise


def _rows(n: int, size: int, seed: int, some: range) -> NDArray[np.int64]:
    """Which records some steps see: every epoch a new order, every record once an epoch."""
    per_epoch = n // size
    places = (divmod(step, per_epoch) for step in some)
    return np.concatenate([_order(n, seed, epoch)[at * size : (at + 1) * size] for epoch, at in places])


@lru_cache(maxsize=1)
def _order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(n)
