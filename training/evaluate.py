"""What a fit learnt: use of the latents, and how well labelled anomalies stand out."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from nelbo.records import Batch, take
from training.vae import VAE

_ACTIVE = 0.01  # variance of a latent's posterior mean over records; Burda et al., ICLR 2016
_N_RECORDS = 2_000  # enough for a mean, few enough for all pairs


@dataclass(frozen=True)
class LatentUse:
    """Whether the latents carry anything (posterior collapse is when they do not).

    Attributes:
        n_latents: how many there are.
        n_active: latents whose posterior mean varies between records by more than 0.01.
        kl: of each latent, what it says of a record, nats: mean KL of its posterior to the normal of all records.
        mutual_information: between records and latents, nats; at most the log of the records it is estimated
            from (2,000).
    """

    n_latents: int
    n_active: int
    kl: tuple[float, ...]
    mutual_information: float

    @property
    def verdict(self) -> str:
        """One sentence for a person."""
        if self.n_active == 0:
            return "collapsed: no latent is in use, so every field is judged alone"
        return f"{self.n_active} of {self.n_latents} latents in use, {self.mutual_information:.1f} nats about a record"

    def as_json(self) -> dict[str, object]:
        """For the manifest."""
        return asdict(self)


def latents_in_use(vae: VAE, batch: Batch, rng: np.random.Generator) -> list[int]:
    """Which latents say different things of different records, judged on up to 2,000 of them."""
    mean, _ = _posterior(vae, batch, rng)
    return [int(at) for at in np.flatnonzero(mean.var(axis=0) > _ACTIVE)]


def latent_use(vae: VAE, batch: Batch, rng: np.random.Generator) -> LatentUse:
    """Diagnoses the latents on up to 2,000 records.

    Source of the estimate I = E[KL(q(z|x) ‖ p)] − KL(q(z) ‖ p): Hoffman & Johnson, ELBO surgery, 2016.
    """
    mean, log_variance = _posterior(vae, batch, rng)
    noise = np.exp(log_variance).mean(axis=0)
    kl = 0.5 * (np.log(mean.var(axis=0) + noise) - log_variance.mean(axis=0))
    return LatentUse(
        n_latents=vae.n_latents,
        n_active=int((mean.var(axis=0) > _ACTIVE).sum()),
        kl=tuple(round(float(value), 4) for value in kl),
        mutual_information=round(_mutual_information(mean, log_variance, rng), 3),
    )


def _posterior(vae: VAE, batch: Batch, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and log-variance of q(z | x) for up to 2,000 records."""
    rows = rng.permutation(len(batch))[:_N_RECORDS]
    with torch.no_grad():
        mean, log_variance = vae.encode(*vae.read(take(batch, rows), _N_RECORDS))
    return mean.numpy(), log_variance.numpy()


def _mutual_information(
    mean: NDArray[np.float32], log_variance: NDArray[np.float32], rng: np.random.Generator
) -> float:
    """E over records and z ~ q(z|x) of log q(z|x) − log q(z), q(z) being the mean over these records."""
    deviation = np.exp(0.5 * log_variance)
    z = mean + deviation * rng.standard_normal(mean.shape)
    log_q = np.empty((len(z), len(z)))
    for i, point in enumerate(z):
        log_q[i] = (-0.5 * ((point - mean) / deviation) ** 2 - 0.5 * log_variance).sum(axis=1)
    highest = log_q.max(axis=1, keepdims=True)
    log_marginal = highest[:, 0] + np.log(np.exp(log_q - highest).mean(axis=1))
    return max(0.0, float((np.diag(log_q) - log_marginal).mean()))
