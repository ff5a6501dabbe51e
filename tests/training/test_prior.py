import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from training.prior import Exemplars, StandardNormal, chosen_exemplars, farthest_first, mixture_around

CENTRES = torch.tensor([[0.0, 0.0, 0.0], [1.0, -0.5, 0.25], [4.0, 4.0, -4.0], [0.5, 0.5, 0.5]])
VARIANCES = torch.tensor([0.3, 0.1, 2.0, 0.05])
WEIGHTS = torch.tensor([0.4, 0.3, 0.2, 0.1])
# Beside an exemplar, between two, far from all; narrow, wide, and of unequal widths.
MEANS = torch.tensor([[0.1, 0.0, -0.1], [0.5, -0.2, 0.2], [-6.0, 6.0, 0.0], [1.0, -0.5, 0.25]])
LOG_VARIANCES = torch.tensor([[-4.6, -4.6, -4.6], [0.0, 0.5, -1.0], [-4.6, -4.6, -4.6], [-2.0, -7.0, 1.0]])


def posterior(i: int) -> "Independent[Normal]":
    return Independent(Normal(MEANS[i].double(), (0.5 * LOG_VARIANCES[i].double()).exp()), 1)


def exemplar(k: int) -> "Independent[Normal]":
    return Independent(Normal(CENTRES[k].double(), VARIANCES[k].double().sqrt().expand(3)), 1)


def kl_to_each() -> NDArray[np.float64]:
    """KL of each posterior to each exemplar alone, (4, 4)."""
    return np.array([[float(kl_divergence(posterior(i), exemplar(k))) for k in range(4)] for i in range(4)])


def found() -> NDArray[np.float64]:
    kl = Exemplars(CENTRES, VARIANCES, WEIGHTS).kl(MEANS, LOG_VARIANCES)
    assert kl.shape == (4, 1)
    return np.asarray(kl[:, 0].double().numpy())


# --- the KL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", range(4))
def test_kl_to_one_exemplar_is_that_of_two_normals(k: int) -> None:
    kl = Exemplars(CENTRES[[k]], VARIANCES[[k]], torch.ones(1)).kl(MEANS, LOG_VARIANCES)
    np.testing.assert_allclose(kl[:, 0].numpy(), kl_to_each()[:, k], rtol=1e-5, atol=1e-5)


def test_kl_to_an_exemplar_at_the_origin_is_that_to_the_standard_normal() -> None:
    one = Exemplars(torch.zeros(1, 3), torch.ones(1), torch.ones(1)).kl(MEANS, LOG_VARIANCES)
    torch.testing.assert_close(one[:, 0], StandardNormal().kl(MEANS, LOG_VARIANCES).sum(dim=1))


def test_kl_to_several_is_the_formula_of_hershey_and_olsen() -> None:
    expected = -logsumexp(-kl_to_each(), axis=1, b=WEIGHTS.numpy())
    np.testing.assert_allclose(found(), expected, rtol=1e-5, atol=1e-5)


def test_kl_to_several_is_at_least_the_true_one() -> None:
    """By 40,000 draws of each posterior; each of 4 bands of 4 standard errors fails once in 31,000 by chance."""
    torch.manual_seed(0)
    mixture = MixtureSameFamily(
        Categorical(WEIGHTS.double()),
        Independent(Normal(CENTRES.double(), VARIANCES.double().sqrt()[:, None].expand(4, 3)), 1),
    )
    for i, bound in enumerate(found()):
        z = posterior(i).sample((40_000,))
        differences = posterior(i).log_prob(z) - mixture.log_prob(z)  # type: ignore[no-untyped-call]  # torch's
        error = float(differences.std()) / math.sqrt(len(z))
        assert bound >= float(differences.mean()) - 4 * error
        # And no vacuous one: for a mixture of four, the choice among them is at most this uncertain.
        assert bound <= float(differences.mean()) + 4 * error + math.log(1 / 0.1)


def test_kl_to_several_is_at_most_that_to_any_one_and_its_weight() -> None:
    apart = kl_to_each() - np.log(WEIGHTS.numpy())
    assert (found() <= apart.min(axis=1) + 1e-4).all()
    assert (found() < apart.min(axis=1) - 0.01).any()  # where two are near, both count


def test_rarity_is_the_negative_log_density_of_the_mixture() -> None:
    mixed = MixtureSameFamily(
        Categorical(WEIGHTS.double()),
        Independent(Normal(CENTRES.double(), VARIANCES.double().sqrt()[:, None].expand(4, 3)), 1),
    )
    expected = -mixed.log_prob(MEANS.double())  # type: ignore[no-untyped-call]  # torch's
    rarity = Exemplars(CENTRES, VARIANCES, WEIGHTS).rarity(MEANS)
    np.testing.assert_allclose(rarity[:, 0].double().numpy(), expected.numpy(), rtol=1e-5)


def test_order_of_exemplars_does_not_matter() -> None:
    order = torch.tensor([2, 0, 3, 1])
    other = Exemplars(CENTRES[order], VARIANCES[order], WEIGHTS[order]).kl(MEANS, LOG_VARIANCES)
    np.testing.assert_allclose(other[:, 0].numpy(), found(), rtol=1e-5, atol=1e-5)


def test_far_from_every_exemplar_the_kl_is_finite_and_grows() -> None:
    far = torch.tensor([[10.0], [100.0], [1e4], [1e9]]).expand(4, 3)
    kl = Exemplars(CENTRES, VARIANCES, WEIGHTS).kl(far, torch.full_like(far, -4.6))[:, 0]
    assert bool(torch.isfinite(kl).all())
    assert bool((kl.diff() > 0).all())


def test_kl_near_exemplars_that_lie_far_out_keeps_its_digits() -> None:
    """As in a table of records that repeat: exemplars a hundred of their own widths apart."""
    rng = np.random.default_rng(4)
    centres = torch.from_numpy(rng.normal(0, 4, (20, 60))).half().float()
    near = centres + torch.from_numpy(rng.normal(0, 0.05, (20, 60))).float()
    narrow = torch.full_like(near, math.log(0.01))
    found = Exemplars(centres, torch.full((20,), 0.02), torch.full((20,), 0.05)).kl(near, narrow)[:, 0]
    distance = cdist(near.double(), centres.double(), "sqeuclidean")
    each = 0.5 * ((distance + 60 * 0.01) / 0.02 - 60 + 60 * math.log(0.02 / 0.01))
    np.testing.assert_allclose(found.numpy(), -logsumexp(-each - math.log(20), axis=1), rtol=1e-5)


# --- the choice ----------------------------------------------------------------------------------------


def points(n: int = 200) -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(size=(n, 3))).float()


@pytest.mark.parametrize("most", [1, 2, 20, 200, 500])
def test_no_point_is_farther_from_the_chosen_ones_than_the_last_of_them_was(most: int) -> None:
    chosen, counts = farthest_first(points(), most)
    assert len(chosen) == len(counts) == min(most, 200)
    assert len(set(chosen.tolist())) == len(chosen)
    distance = cdist(points().double(), points()[chosen].double())
    gaps = [float(distance[chosen[k], :k].min()) for k in range(1, len(chosen))]
    assert all(later <= earlier + 1e-5 for earlier, later in pairwise(gaps))
    if gaps:
        assert distance.min(axis=1).max() <= gaps[-1] + 1e-5


def test_every_point_counts_for_the_nearest_chosen_one() -> None:
    chosen, counts = farthest_first(points(), 20)
    nearest = cdist(points().double(), points()[chosen].double()).argmin(axis=1)
    assert counts.tolist() == np.bincount(nearest, minlength=20).tolist()
    assert counts.sum() == 200


def test_repeated_points_are_chosen_once() -> None:
    repeated = torch.tensor([[0.0, 1.0], [2.0, 3.0], [2.0, 3.5]]).repeat(10, 1)
    chosen, counts = farthest_first(repeated, 20)
    assert sorted(repeated[chosen].tolist()) == [[0.0, 1.0], [2.0, 3.0], [2.0, 3.5]]
    assert counts.tolist() == [10.0, 10.0, 10.0]


def mixture(means: Tensor, most: int, seed: int = 0, *, own: float = 0.5, variance: float = 0.01) -> Exemplars:
    chosen = chosen_exemplars(means, most, seed)
    return mixture_around(means[chosen.records], chosen.weights, variance, own)


def test_identical_records_leave_one_exemplar_whose_kl_is_finite() -> None:
    means = torch.tensor([[0.25, -3.0]]).repeat(30, 1)
    prior = mixture(means, 16)
    assert prior.centres.tolist() == [[0.25, -3.0]]
    assert prior.log_weights.tolist() == [0.0]
    kl = prior.kl(torch.tensor([[0.25, -3.0], [0.25, 3.0]]), torch.full((2, 2), math.log(0.01)))
    assert bool(torch.isfinite(kl).all())
    # Two normals of one centre, of variances 0.01 and 0.02; float32 rounds squares of 3, which 0.02 divides.
    assert float(kl[0]) == pytest.approx(0.5 - 1 + math.log(2), abs=1e-3)
    assert float(kl[1]) == pytest.approx(float(kl[0]) + 36 / (2 * 0.02), rel=1e-4)


@pytest.mark.parametrize("most", [1, 2, 7, 1000])
def test_exemplars_are_encoded_records_and_weigh_one_in_sum(most: int) -> None:
    prior = mixture(points(), most)
    assert len(prior.centres) == min(most, 200)
    assert float(prior.log_weights.exp().sum()) == pytest.approx(1, abs=1e-5)
    assert bool((prior.variances > 0).all())
    off = cdist(prior.centres.double(), points().double()).min(axis=1)
    assert off.max() < 3 * 2**-10  # eleven bits of numbers below 4


def test_one_seed_chooses_the_same_exemplars() -> None:
    one, two, other = (mixture(points(), 7, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["centres"], other["centres"])


@pytest.mark.parametrize("own", [0.0, 0.5, 1.0])
def test_width_follows_an_exemplars_own_surroundings_as_far_as_asked(own: float) -> None:
    """Two lattices, one ten times as wide: its exemplars' widths are 100^own times the other's."""
    lattice = torch.cartesian_prod(torch.arange(10.0), torch.arange(10.0))
    both = torch.cat([lattice, 10 * lattice + 500])
    variances = mixture_around(both, torch.full((200,), 1 / 200), 0.0, own).variances
    inner = (lattice.amin(dim=1) > 0) & (lattice.amax(dim=1) < 9)  # at the edge neighbours lie farther
    ratio = variances[100:][inner].mean() / variances[:100][inner].mean()
    assert float(ratio) == pytest.approx(100**own, rel=0.02)  # a floor of a hundredth of a square is added to both


def clusters() -> Tensor:
    rng = np.random.default_rng(5)
    return torch.from_numpy(np.concatenate([rng.normal(at, 0.3, size=(150, 2)) for at in (-3, 3)])).float()


def test_gap_between_records_is_odder_than_their_midst() -> None:
    """Which N(0, I) has the other way round."""
    prior = mixture(clusters(), 40)
    asked = torch.tensor([[0.0, 0.0], [3.0, 3.0], [-3.0, -3.0]])
    gap, *midst = prior.kl(asked, torch.full((3, 2), math.log(0.01)))[:, 0].tolist()
    assert gap > max(midst) + 3
    to_normal = StandardNormal().kl(asked, torch.full((3, 2), math.log(0.01))).sum(dim=1)
    assert to_normal[0] < to_normal[1:].min()


def test_shared_factor_explains_fresh_records_about_as_well_as_the_best_one() -> None:
    """The factor is chosen by the exemplars' surprise at each other; fresh records judge it.

    Within 0.3 nats of the best factor of a finer grid: factors lie 1.4 apart, and exemplars stand apart from each
    other more than records do.
    """
    rng = np.random.default_rng(6)
    known, fresh = (torch.from_numpy(rng.normal(size=(n, 2))).float() for n in (400, 2000))
    prior = mixture(known, 400)
    narrow = torch.full((2000, 2), math.log(0.01))
    weights = prior.log_weights.exp()

    def surprise(factor: float) -> float:
        return float(Exemplars(prior.centres, factor * prior.variances, weights).kl(fresh, narrow).mean())

    assert surprise(1.0) <= min(surprise(1.2**i) for i in range(-12, 13)) + 0.3


def test_exemplars_of_many_points_far_from_the_origin_are_those_that_all_distances_give() -> None:
    # In float32 |a|² + |b|² − 2ab would leave nothing of these distances.
    points = (np.random.default_rng(0).normal(size=(300, 5)) + 1000).astype(np.float32)
    distance, expected = cdist(points.astype(np.float64), points.astype(np.float64)), [0]
    while len(expected) < 120:
        expected.append(int(distance[expected].min(axis=0).argmax()))
    chosen, n_covered = farthest_first(torch.from_numpy(points), 120)
    assert chosen.tolist() == expected
    assert n_covered.tolist() == np.bincount(distance[expected].argmin(axis=0), minlength=120).tolist()


def test_points_that_repeat_are_chosen_once_even_where_more_are_equally_far_than_are_looked_ahead() -> None:
    corners = torch.eye(200)
    chosen, n_covered = farthest_first(torch.cat([corners, corners]), 1000)
    assert sorted(chosen.tolist()) == list(range(200))
    assert n_covered.tolist() == [2.0] * 200
