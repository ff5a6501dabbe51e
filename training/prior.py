"""What a record is held against: p(z), the KL of a posterior to it, and the density of records themselves."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Numbers of exemplars that a record is told by, 16 of them at least: in few dimensions many overlap. Chosen
_NUMBERS_THAT_MATTER, _FEWEST_THAT_MATTER = 512, 16


class StandardNormal(nn.Module):
    """p(z) = N(0, I)."""

    def kl(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """KL(q(z | x) ‖ p) of each latent, (n, L), nats."""
        return kl_to_standard_normal(mean, log_variance)


@dataclass(frozen=True)
class Itself:
    """Which exemplar each of n records is, so that it can be held against the others.

    Attributes:
        exemplar: shape (n,), its position.
        share: shape (n,), what others have in its weight: of c records that it covers, (c − 1) / c. A record that is
            there twice is still known by the other.
    """

    exemplar: Tensor
    share: Tensor


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

    def kl(self, mean: Tensor, log_variance: Tensor, itself: Itself | None = None) -> Tensor:
        """An upper bound of KL(q(z | x) ‖ p), (n, 1), nats: −log Σ_k w_k exp(−KL(q ‖ N(c_k, b_k I))).

        With `itself`, of records that are exemplars, to the mixture as it would be without the record.

        Source: Hershey & Olsen, Approximating the KL divergence between Gaussian mixture models, ICASSP 2007. With it
        the ELBO stays a lower bound.
        """
        spread = log_variance.exp().sum(dim=1, keepdim=True)  # one of a record, or one for all
        return self._surprise(mean, spread, itself) - 0.5 * (mean.shape[1] + log_variance.sum(dim=1, keepdim=True))

    def rarity(self, z: Tensor, itself: Itself | None = None) -> Tensor:
        """−log p(z), (n, 1), nats; with `itself`, as `kl`."""
        return self._surprise(z, torch.zeros(1, 1), itself) + 0.5 * z.shape[1] * math.log(2 * math.pi)

    def _surprise(self, mean: Tensor, spread: Tensor, itself: Itself | None) -> Tensor:
        """−log Σ_k w_k b_k^(−L/2) exp(−(|mean − c_k|² + spread) / 2 b_k) over the k that matter, (n, 1).

        To leave the others out keeps the KL's bound a bound. Which matter, a rough measure tells: among those that it
        confuses it does not matter which is left out. Their distances are taken by differences: in float32 the squares
        of a record and of an exemplar far out would leave nothing of a small distance.
        """
        centres, n_latents = self.centres.float(), self.centres.shape[1]
        n_that_matter = max(_FEWEST_THAT_MATTER, _NUMBERS_THAT_MATTER // n_latents)
        log_height = self.log_weights - 0.5 * n_latents * self.variances.log()
        slope = 0.5 / self.variances
        # −slope |mean − c|² as one product, of (mean, |mean|²) with (2 slope c, −slope).
        both = torch.cat([mean, mean.square().sum(dim=1, keepdim=True)], dim=1)
        factors = torch.cat([2 * slope * centres.T, -slope[None]])
        rough = both @ factors + (log_height - slope * (centres.square().sum(dim=1) + spread))
        if itself is not None:
            n_that_matter += 1
        nearest = rough.topk(min(n_that_matter, len(centres)), dim=1).indices
        distance = (mean[:, None] - self.centres[nearest].float()).square().sum(dim=2)
        log_mass = log_height[nearest] - (distance + spread) * slope[nearest]
        if itself is None:
            return -torch.logsumexp(log_mass, dim=1, keepdim=True)
        is_own = nearest == itself.exemplar[:, None]
        log_mass = log_mass + torch.where(is_own, itself.share.log()[:, None], 0.0)
        taken = self.log_weights[itself.exemplar].exp() * (1 - itself.share)  # the rest weighs 1 in sum again
        return (-torch.logsumexp(log_mass, dim=1) + torch.log1p(-taken))[:, None]


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z_l | x) ‖ N(0, 1)) of each latent, nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


# --- choosing exemplars --------------------------------------------------------------------------------

MOST_LOOKED_AT = 20_000  # encoded records among which exemplars are chosen: a second; chosen
_AHEAD = 64  # points whose distances are bounded at once; with 16 or 256 the choice takes as long or longer
_N_NEIGHBOURS = 5
_MOST_OTHERS = 256  # neighbours by which an exemplar is explained; those farther off add nothing. Chosen
_FLOOR = 0.01  # of a squared distance per latent: records that repeat have no distance, yet some surroundings
_FACTORS = (0.1, 0.2, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0, 5.0, 8.0)


@dataclass(frozen=True)
class Chosen:
    """Which records are exemplars.

    Attributes:
        records: shape (K,), their positions.
        n_covered: shape (K,), of how many records each is the nearest, itself included.
    """

    records: Tensor
    n_covered: Tensor

    @property
    def weights(self) -> Tensor:
        """Of each in the mixture, 1 in sum."""
        return self.n_covered / self.n_covered.sum()


def chosen_exemplars(means: Tensor, most: int, seed: int) -> Chosen:
    """Which encoded records cover the others.

    Args:
        means: shape (n, L), posterior means.
        most: exemplars.
        seed: of the sample of a large table, and of the first exemplar.
    """
    looked_at = torch.randperm(len(means), generator=torch.Generator().manual_seed(seed))[:MOST_LOOKED_AT]
    chosen, counts = farthest_first(means[looked_at], most)
    return Chosen(looked_at[chosen], counts)


def mixture_around(centres: Tensor, weights: Tensor, variance: float, own: float) -> Exemplars:
    """A mixture of normals around exemplars that explains each of them by the others best.

    A variance b_k lies between the exemplar's own distance to its neighbours and the usual one; the factor that they
    all share is the one under which exemplars explain each other best, each left out of its own explanation.

    Args:
        centres: shape (K, L).
        weights: shape (K,), 1 in sum.
        variance: of what is held against the mixture, in every direction: of a posterior; 0 of a point.
        own: how far an exemplar's own distance counts beside the usual one, 0 to 1.
    """
    centres, n_latents = centres.half().float(), centres.shape[1]
    if len(centres) == 1:  # one record, again and again
        return Exemplars(centres, torch.tensor([variance + _FLOOR]), weights)
    distance, others = _nearest_of_each_other(centres)
    radius = (distance[:, :_N_NEIGHBOURS] + _FLOOR * n_latents).log().mean(dim=1)
    usual = (own * radius + (1 - own) * radius.mean()).exp() / n_latents

    def surprise(factor: float) -> float:
        """Mean bound of the KL of each exemplar's posterior to the mixture of the others, up to a constant."""
        variances = factor * usual[others]
        spread = (distance + n_latents * variance) / variances + n_latents * variances.log()
        return float(-torch.logsumexp(weights[others].log() - 0.5 * spread, dim=1).mean())

    return Exemplars(centres, usual * min(_FACTORS, key=surprise), weights)


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
    at_least: dict[int, Tensor] = {}
    while len(chosen) < min(most, len(points)):
        farthest = int(distance.argmax())
        if distance[farthest] <= 0:
            break
        if farthest not in at_least:  # the next ones are mostly among those that are far now
            at_least = _lower_bounds(points, [farthest, *distance.topk(min(_AHEAD, len(points))).indices.tolist()])
        maybe = (at_least[farthest] < distance).nonzero()[:, 0]
        nearer = (points[maybe] - points[farthest]).square().sum(dim=1)
        is_nearer = nearer < distance[maybe]
        owner[maybe[is_nearer]] = len(chosen)
        distance[maybe[is_nearer]] = nearer[is_nearer]
        chosen.append(farthest)
    return torch.tensor(chosen), torch.bincount(owner, minlength=len(chosen)).float().clamp_min(1)


def _lower_bounds(points: Tensor, some: list[int]) -> dict[int, Tensor]:
    """What the squared distances of some points to all of them are at least, by position, each (n,).

    |a − b|² = |a|² + |b|² − 2ab is one product for all. Of L float32 numbers it errs by less than
    (L + 4) · 2⁻²² (|a|² + |b|²), which is taken off.
    """
    squares = points.square().sum(dim=1) * (1 - (points.shape[1] + 4) * 2.0**-22)
    bounds = torch.addmm(squares, points[some], points.T, alpha=-2) + squares[some, None]
    return dict(zip(some, bounds, strict=True))


def _nearest_of_each_other(centres: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances of each to the nearest others and which these are, both (K, at most 256), nearest first."""
    distance = torch.cdist(centres, centres).square().fill_diagonal_(math.inf)
    nearest = distance.topk(min(_MOST_OTHERS, len(centres) - 1), largest=False)
    return nearest.values, nearest.indices
