"""What a record's latents are held against: p(z), and the KL of a posterior to it."""

import math

import torch
from torch import Tensor, nn


class StandardNormal(nn.Module):
    """p(z) = N(0, I)."""

    def kl(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """KL(q(z | x) ‖ p) of each latent, (n, L), nats."""
        return kl_to_standard_normal(mean, log_variance)


class Exemplars(nn.Module):
    """A mixture of normals around encoded records: p(z) = Σ_k w_k N(z; c_k, b_k I).

    It has a mode wherever there were records, and so tells a gap between them from their midst, which N(0, I) cannot.
    After Tomczak & Welling, VAE with a VampPrior, AISTATS 2018, and Norouzi et al., Exemplar VAE, NeurIPS 2020; here
    the exemplars are chosen after the fit.

    Args:
        centres: shape (K, L).
        variances: shape (K,), b_k.
        weights: shape (K,), positive, 1 in sum.
    """

    centres: Tensor
    variances: Tensor
    log_weights: Tensor

    def __init__(self, centres: Tensor, variances: Tensor, weights: Tensor) -> None:
        super().__init__()
        # 11 bits are plenty for a place that stands for its surroundings, and halve the file.
        self.register_buffer("centres", centres.half())
        self.register_buffer("variances", variances.float())
        self.register_buffer("log_weights", weights.float().log())

    def kl(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """An upper bound of KL(q(z | x) ‖ p), (n, 1), nats: −log Σ_k w_k exp(−KL(q ‖ N(c_k, b_k I))).

        Source: Hershey & Olsen, Approximating the KL divergence between Gaussian mixture models, ICASSP 2007. With it
        the ELBO stays a lower bound.
        """
        # In double: beside an exemplar far out, float32 would leave nothing of a small distance.
        centres, exact = self.centres.double(), mean.double()
        n_latents = centres.shape[1]
        size = (exact.square() + log_variance.double().exp()).sum(dim=1, keepdim=True)
        distance = (size - 2 * exact @ centres.T + centres.square().sum(dim=1)).float()
        log_mass = self.log_weights - 0.5 * (distance / self.variances + n_latents * self.variances.log())
        highest = log_mass.amax(dim=1, keepdim=True)
        log_sum = (log_mass - highest).exp().sum(dim=1, keepdim=True).log() + highest
        return -log_sum - 0.5 * (n_latents + log_variance.sum(dim=1, keepdim=True))


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z_l | x) ‖ N(0, 1)) of each latent, nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


# --- choosing exemplars --------------------------------------------------------------------------------

MOST_LOOKED_AT = 20_000  # encoded records among which exemplars are chosen: seconds; chosen
_N_NEIGHBOURS = 5
_FLOOR = 0.01  # of a squared distance per latent: records that repeat have no distance, yet some surroundings
_FACTORS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 8.0)


def chosen_exemplars(means: Tensor, variance: float, most: int, seed: int) -> Exemplars:
    """Exemplars that cover encoded records, each weighed by how many of them it is the nearest to.

    A variance b_k lies between the exemplar's own distance to its neighbours and the usual one; the factor that they
    all share is the one under which exemplars explain each other best, each left out of its own explanation.

    Args:
        means: shape (n, L), posterior means of the records fitted on.
        variance: of every latent's posterior.
        most: exemplars.
        seed: of the sample of a large table, and of the first exemplar.
    """
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        looked_at = means[torch.randperm(len(means), generator=generator)[:MOST_LOOKED_AT]]
        chosen, counts = farthest_first(looked_at, most)
        centres, weights = looked_at[chosen].half().float(), counts / counts.sum()
        n_latents = means.shape[1]
        if len(centres) == 1:  # one record, again and again
            return Exemplars(centres, torch.tensor([variance + _FLOOR]), weights)
        distance = _squared_distances(centres)
        nearest = distance.topk(min(_N_NEIGHBOURS, len(centres) - 1), largest=False).values
        radius = (nearest + _FLOOR * n_latents).log().mean(dim=1)
        usual = (0.5 * (radius + radius.mean())).exp() / n_latents
        factor = min(_FACTORS, key=lambda f: _surprise_of_each_other(distance, usual * f, variance, weights, n_latents))
        return Exemplars(centres, usual * factor, weights)


def farthest_first(points: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Points that leave none of the others far away, the first one given (Gonzalez 1985).

    Args:
        points: shape (n, L).
        most: how many to choose; repetitions of a point are never chosen.

    Returns:
        Positions, shape (K,), and of how many points each is the nearest, shape (K,).
    """
    chosen = [0]
    owner = torch.zeros(len(points), dtype=torch.int64)
    distance = (points - points[0]).square().sum(dim=1)
    while len(chosen) < min(most, len(points)):
        farthest = int(distance.argmax())
        if distance[farthest] <= 0:
            break
        nearer = (points - points[farthest]).square().sum(dim=1)
        owner[nearer < distance] = len(chosen)
        distance = torch.minimum(distance, nearer)
        chosen.append(farthest)
    return torch.tensor(chosen), torch.bincount(owner, minlength=len(chosen)).float().clamp_min(1)


def _squared_distances(centres: Tensor) -> Tensor:
    """Among all of them, (K, K); an exemplar is infinitely far from itself."""
    distance = torch.cdist(centres, centres).square()
    return distance.fill_diagonal_(math.inf)


def _surprise_of_each_other(
    distance: Tensor, variances: Tensor, variance: float, weights: Tensor, n_latents: int
) -> float:
    """Mean bound of the KL of each exemplar's posterior to the mixture of the others, up to a constant."""
    spread = (distance + n_latents * variance) / variances + n_latents * variances.log()
    return float(-torch.logsumexp(weights.log() - 0.5 * spread, dim=1).mean())
