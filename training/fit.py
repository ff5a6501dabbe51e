"""The optimisation: seeded, resumable, deterministic on a processor."""

import io
import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nelbo.bundle import replace_file
from nelbo.errors import TableError
from nelbo.records import Batch
from training.config import Config
from training.layout import Layout
from training.prior import kl_to_standard_normal
from training.steps import Step, steps
from training.vae import VAE

_GRADIENT_NORM = 5.0  # chosen; a heavy-tailed batch must not throw the weights away
_MOST_TURNED = 10_000  # records that principal axes are found on; chosen
_WORTH_THREADS = 2**25  # multiplications of the largest layer in a step, about 2 ms on one core; chosen
_EMA = 0.995  # of the weights that are exported: the last step's noise is averaged out
_PULL = 0.01  # weight of a latent's square beside exemplars: else they grow and drown the noise. At 0.05 as at 0, worse


@dataclass(frozen=True)
class Progress:
    """How far a fit is.

    Attributes:
        step: of `steps`.
        loss: nats per record, averaged over the last steps: −ELBO with a standard normal prior; with exemplars,
            which come later, what it costs to restore a record from noisy latents.
    """

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Fitted:
    """A fit's outcome: the model and the loss along the way, as (step, nats per record)."""

    vae: VAE
    losses: list[tuple[int, float]]


@dataclass(frozen=True)
class Checkpoint:
    """Where a fit keeps its state, so that it can go on after an interruption.

    Attributes:
        path: an .npz file of plain arrays.
        fingerprint: of everything that shapes the fit; another one is refused.
    """

    path: Path
    fingerprint: str
    every_steps: int = 500


def fit(
    layout: Layout,
    batch: Batch,
    config: Config,
    seed: int,
    report: Callable[[Progress], None] = lambda _: None,
    checkpoint: Checkpoint | None = None,
) -> Fitted:
    """Fits a VAE to normal records.

    Args:
        layout: from the same records.
        batch: the records.
        config: settings.
        seed: of weights, batches and noise; two fits with one seed on one machine are equal.
        report: called every few steps.
        checkpoint: resumed from if it is there, removed at the end.
    """
    with _threads(layout, config):
        return _fit(layout, batch, config, seed, report, checkpoint)


@contextmanager
def _threads(layout: Layout, config: Config) -> Iterator[None]:
    """One thread for layers this small, whatever torch's own choice.

    Measured 2026-11-22 on 2 cores, 128 × 128 layers, batches of 256, beside another busy process: the demo's fit took
    138 s on two threads, which wait spinning for each other at every layer, and 26 s on one.
    """
    widths = [layout.n_features + sum(layout.n_codes), *config.decoder]
    multiplications = config.batch_size * max((a * b for a, b in pairwise(widths)), default=0)
    before = torch.get_num_threads()
    torch.set_num_threads(1 if multiplications < _WORTH_THREADS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    layout: Layout,
    batch: Batch,
    config: Config,
    seed: int,
    report: Callable[[Progress], None],
    checkpoint: Checkpoint | None,
) -> Fitted:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = fresh(layout, batch, config, seed).to(device)
    parameters: list[Tensor] = list(vae.parameters())
    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
    averaged = [p.detach().clone() for p in parameters]
    losses: list[tuple[int, float]] = []
    start = _resume(checkpoint, vae, optimiser, averaged, losses)
    recent = torch.zeros((), device=device)
    n_steps = config.steps_for(len(batch))
    every = max(1, n_steps // 200)
    for step, seen in enumerate(steps(vae, batch, config, seed, range(start, n_steps)), start):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, n_steps)
        minimised, nats = loss(vae, seen, min(1.0, (step + 1) / max(1.0, config.warm_up * n_steps)))
        optimiser.zero_grad(set_to_none=True)
        minimised.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, _GRADIENT_NORM)
        optimiser.step()
        # A running mean that starts at the first weights would carry them for long: the weight grows into _EMA.
        torch._foreach_lerp_(averaged, parameters, 1 - min(_EMA, (step + 1) / (step + 10)))
        recent += nats
        if (step + 1) % every == 0:
            losses.append((step + 1, _finite(recent.item() / every)))
            recent.zero_()
            report(Progress(step + 1, n_steps, losses[-1][1]))
        if checkpoint is not None and (step + 1) % checkpoint.every_steps == 0:
            _save(checkpoint, step + 1, vae, optimiser, averaged, losses)
    with torch.no_grad():
        for parameter, mean in zip(parameters, averaged, strict=True):
            parameter.copy_(mean)
    if checkpoint is not None:
        checkpoint.path.unlink(missing_ok=True)
    return Fitted(vae.cpu().eval(), losses)


def fresh(layout: Layout, batch: Batch, config: Config, seed: int) -> VAE:
    """A model that has learnt nothing yet; arguments as for `fit`."""
    torch.manual_seed(seed)
    vae = VAE(layout, config)
    if vae.with_exemplars:
        _turn_onto_axes(vae, batch)
        vae.likelihood, vae.log_scale = "cauchy", torch.nn.Parameter(torch.full((1,), -0.5))
    return vae


def _turn_onto_axes(vae: VAE, batch: Batch) -> None:
    """Where a record has more columns than there are latents: these are its principal axes, on up to 10,000 records."""
    if vae.turn.shape[0] <= vae.turn.shape[1]:
        return
    columns = vae.shown_columns(*vae.read(batch, _MOST_TURNED))
    axes = torch.linalg.eigh((columns.T @ columns).double()).eigenvectors  # the one of the smallest variance first
    vae.turn = axes.flip(1)[:, : vae.n_latents].float().contiguous()


def loss(vae: VAE, step: Step, kl_weight: float) -> tuple[Tensor, Tensor]:
    """What is minimised, and nats per record, of one step.

    Args:
        vae: being fitted.
        step: what it sees.
        kl_weight: of the KL to a standard normal prior, which a model with exemplars does not have yet.
    """
    mean, log_variance = vae.encode_columns(step.columns, step.shown)
    if vae.with_exemplars:
        z = mean + step.noise
        beside = _PULL * 0.5 * mean.square().sum(dim=1)
    else:
        z = mean + (0.5 * log_variance).exp() * step.noise
        beside = kl_weight * kl_to_standard_normal(mean, log_variance).sum(dim=1)
    nats = ((vae.nll(z, step.t, step.one_hot) * step.observed).sum(dim=1) + beside).mean()
    # A gradient by field: its size, and so where it is clipped, does not depend on how many fields there are.
    return (nats / step.observed.shape[1] if vae.with_exemplars else nats), nats.detach()


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up over a twentieth of the steps, then down along a cosine."""
    warm = min(1.0, (step + 1) / max(1, steps // 20))
    return warm * 0.5 * (1 + math.cos(math.pi * step / steps))


def _finite(loss: float) -> float:
    if not math.isfinite(loss):
        raise TableError("the fit diverged: its loss is no longer a number; lower learning_rate in the config")
    return loss


# --- checkpoints: plain arrays, no pickle -------------------------------------------------------------


def _save(
    checkpoint: Checkpoint,
    step: int,
    vae: VAE,
    optimiser: torch.optim.Adam,
    averaged: list[Tensor],
    losses: list[tuple[int, float]],
) -> None:
    arrays: dict[str, NDArray[np.float64] | NDArray[np.str_]] = {
        "fingerprint": np.array(checkpoint.fingerprint),
        "step": np.array(step),
        "losses": np.array(losses).reshape(-1, 2),
    }
    for i, parameter in enumerate(vae.parameters()):
        state = optimiser.state[parameter]
        tensors = {"now": parameter, "mean": averaged[i], **{k: state[k] for k in ("step", "exp_avg", "exp_avg_sq")}}
        arrays |= {f"{name}_{i}": tensor.detach().cpu().numpy() for name, tensor in tensors.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    replace_file(checkpoint.path, buffer.getvalue())


def _resume(
    checkpoint: Checkpoint | None,
    vae: VAE,
    optimiser: torch.optim.Adam,
    averaged: list[Tensor],
    losses: list[tuple[int, float]],
) -> int:
    """The step to go on from, with everything as it was then; 0 where there is nothing to resume."""
    if checkpoint is None or not checkpoint.path.exists():
        return 0
    try:
        with np.load(io.BytesIO(checkpoint.path.read_bytes()), allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise TableError(f"{checkpoint.path}: is not a checkpoint of a fit; remove it to start anew") from error
    if str(arrays.get("fingerprint")) != checkpoint.fingerprint:
        raise TableError(
            f"{checkpoint.path}: belongs to a fit of other data, settings or seed; remove it to start anew"
        )
    with torch.no_grad():
        for i, parameter in enumerate(vae.parameters()):
            parameter.copy_(torch.from_numpy(arrays[f"now_{i}"]))
            averaged[i].copy_(torch.from_numpy(arrays[f"mean_{i}"]))
            optimiser.state[parameter] = {
                name: torch.from_numpy(arrays[f"{name}_{i}"]).to(parameter.device)
                for name in ("step", "exp_avg", "exp_avg_sq")
            }
    losses.extend((int(step), float(loss)) for step, loss in arrays["losses"])
    return int(arrays["step"])
