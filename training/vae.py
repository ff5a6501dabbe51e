"""The model, whole: from raw columns to nats.

Shapes: n records, N numbers (numeric and timestamp fields), C coded fields, F = N + C fields in the schema's
order, D numeric features, K codes over all coded fields, L latents, P sigma points.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from nelbo.records import Batch
from training.config import Config
from training.layout import BEND, FURTHEST, MIN_SCALE, Layout
from training.prior import Exemplars, StandardNormal

MOST_LATENTS = 512  # of a model with exemplars; records of more columns are turned onto their principal axes
# Standard deviation of every latent's posterior beside exemplars, where the network has learnt to bear a noise of 1.
# From 0.02 to 0.35 −ELBO ranks 29 tables alike; at 0.5 dense tables of few fields blur.
POSTERIOR_SCALE = 0.1
_N_DIRECTIONS = 2  # for the expectation over q where latents are many; chosen, each costs two more decodings
_MOST_AXES, _FEW_AXES = 16, 4  # of few latents each one's own axis is one
DEGREES = 4.0  # of freedom of Student's t: from 2 to 8 the ranking of 29 tables stays the same
_LOGIT_CAP = 20.0  # e^20 and its sums stay finite in float32; a category cannot surprise by more than 40 nats
_DAY_S, _WEEK_S = 86_400.0, 604_800.0
_FURTHEST_S = 2.0**50  # 35 million years; a power of two, since the exporter writes a bound down in float32
# The encoder sees no value further out than this; the likelihood does. Wilder inputs would only blow up the
# latents, let the decoder follow an outlier, and drown the arithmetic of the other fields in float32 noise.
_FURTHEST_SEEN = 10.0
_NO_RESIDUAL = 0.01  # added before its logarithm: records restored exactly have one too; chosen
_LONGEST_LOG = 343.0  # bend(1e30): what the decoder expects is kept where its inverse is a number


class VAE(nn.Module):
    """A variational autoencoder over mixed fields.

    −ELBO = Σ_f NLL_f + KL(q(z | x) ‖ p) in nats, of the record with its numbers transformed: centred, divided by a
    robust spread, bent beyond 5 of these, standardised.

    With exemplars (the default) there are as many latents as a record has columns: the mean of q(z | x) is the record
    as one vector plus what the encoder adds, its variance a constant. The decoder, which sees
    nothing but z, learns from noisy latents to lead back to where records lie. With a standard normal prior the
    latents are few, and the encoder alone says mean and variance.

    Args:
        layout: of the table.
        config: of the fit.

    Attributes:
        prior: p(z); of a model with exemplars, only once `training.settle` has chosen them.
        surroundings: a mixture around the exemplars as they were before the encoder; None without exemplars.
        typical_distance: shape (D + C,), what a missing value counts as in the residual.
        likelihood: of a numeric field around what the decoder expects.
        turn: shape (D + K, L), from a record as one vector to its place among the latents; only with exemplars.
        reach: shape (L,), beyond which no posterior mean goes; only with exemplars.
        directions: shape (U, L), along which the expectation over q is taken.
    """

    numeric: Tensor
    location: Tensor
    scale: Tensor
    largest: Tensor
    centre: Tensor
    width: Tensor
    to_schema_order: Tensor
    to_number_order: Tensor
    field_of_feature: Tensor
    field_of_one_hot: Tensor
    field_of_distance: Tensor
    owner_of_code: Tensor
    code_within: Tensor
    offered: Tensor
    is_seen: Tensor
    unseen_nats: Tensor
    seen_nats: Tensor
    sum_features: Tensor
    sum_codes: Tensor
    turn: Tensor
    log_variance: Tensor
    reach: Tensor
    directions: Tensor
    typical_distance: Tensor

    def __init__(self, layout: Layout, config: Config) -> None:
        super().__init__()
        self.likelihood: str = config.likelihood
        self.furthest_seen = _FURTHEST_SEEN
        n_fields = len(layout.schema.fields)
        self.n_features, self.n_codes = layout.n_features, sum(layout.n_codes)
        n_columns = self.n_features + self.n_codes
        self.with_exemplars = config.prior == "exemplars"
        if self.with_exemplars:
            self.n_latents = min(n_columns, config.n_latents or MOST_LATENTS)
        else:
            self.n_latents = config.n_latents or min(16, max(2, n_fields // 2))
        self._register_layout(layout)
        self.register_buffer("turn", torch.eye(n_columns, self.n_latents), persistent=False)
        self.register_buffer("log_variance", torch.full((1, self.n_latents), 2 * math.log(POSTERIOR_SCALE)), False)
        self.register_buffer("reach", torch.full((self.n_latents,), 1e4), persistent=False)
        self.take_expectation_along(list(range(self.n_latents)))
        n_out = self.n_latents if self.with_exemplars else 2 * self.n_latents
        self.encoder = perceptron([n_columns + n_fields, *config.encoder, n_out])
        self.decoder = perceptron([self.n_latents, *config.decoder, n_columns])
        self.log_scale = nn.Parameter(torch.zeros(1 if config.shared_scale else self.n_features))
        self.prior: StandardNormal | Exemplars = StandardNormal()
        self.surroundings: Exemplars | None = None
        self.register_buffer("typical_distance", torch.zeros(self.n_features + len(layout.n_codes)), persistent=False)

    @property
    def n_exemplars(self) -> int:
        """Encoded records that the prior holds."""
        return len(self.prior.centres) if isinstance(self.prior, Exemplars) else 0

    def take_expectation_along(self, in_use: Sequence[int]) -> None:
        """Says which latents the expectation over q is taken along.

        A collapsed latent says the same of every record, and the decoder has learnt not to listen to it: its axis
        would only cost two more decodings. Of many latents, a few directions at random stand for all.

        Args:
            in_use: positions of the latents that say something.
        """
        if len(in_use) <= (_FEW_AXES if self.with_exemplars else _MOST_AXES):
            directions = torch.eye(self.n_latents)[list(in_use)] * math.sqrt(max(1, len(in_use)))
        else:
            drawn = torch.randn(self.n_latents, _N_DIRECTIONS, generator=torch.Generator().manual_seed(0))
            directions = torch.linalg.qr(drawn).Q.T * math.sqrt(self.n_latents)
        self.register_buffer("directions", directions.contiguous(), persistent=False)

    def _register_layout(self, layout: Layout) -> None:
        schema = layout.schema

        def constant(name: str, values: object, kind: torch.dtype) -> None:
            self.register_buffer(name, torch.as_tensor(values, dtype=kind), persistent=False)

        self.timestamps = layout.timestamps
        constant("numeric", layout.numeric, torch.int64)
        constant("location", layout.location, torch.float64)
        constant("scale", layout.scale, torch.float64)
        constant("largest", 1.7e308, torch.float64)
        constant("centre", layout.centre, torch.float32)
        constant("width", layout.width, torch.float32)
        # Fields come as numbers and codes; the schema has them in one order.
        order = [schema.positions[column.name] for column in schema.numbers + schema.codes]
        constant("to_schema_order", [order.index(position) for position in range(len(order))], torch.int64)
        constant("sum_features", _membership(layout.feature_owner, len(schema.numbers)), torch.float32)
        owner_of_code = [j for j, n in enumerate(layout.n_codes) for _ in range(n)]
        constant("owner_of_code", owner_of_code, torch.int64)
        of_number, of_code = order[: len(schema.numbers)], order[len(schema.numbers) :]
        of_feature = [of_number[j] for j in layout.feature_owner]
        constant("field_of_feature", of_feature, torch.int64)
        constant("field_of_one_hot", [of_code[j] for j in owner_of_code], torch.int64)
        constant("field_of_distance", of_feature + of_code, torch.int64)
        constant("code_within", [code for n in layout.n_codes for code in range(n)], torch.int64)
        constant("sum_codes", _membership(owner_of_code, len(layout.n_codes)), torch.float32)
        # The likeliest category of a field: not "rare" or "unseen" unless nothing else is known.
        offered = [0.0 if code < max(1, n - 2) else -1e4 for n in layout.n_codes for code in range(n)]
        constant("offered", offered, torch.float32)
        # "Unseen" is outside of the softmax over the others: its probability is known beforehand, and the same always.
        is_unseen = [float(code == n - 1) for n in layout.n_codes for code in range(n)]
        constant("is_seen", [1 - one for one in is_unseen], torch.float32)
        constant("unseen_nats", [-math.log(p) for p in layout.unseen], torch.float32)
        constant("seen_nats", [-math.log1p(-p) for p in layout.unseen], torch.float32)
        self.code_ranges = [(sum(layout.n_codes[:j]), n) for j, n in enumerate(layout.n_codes)]
        n_numeric = len(layout.numeric)  # one past the last: the blank that stands for a timestamp
        places = [layout.numeric.index(j) if j in layout.numeric else n_numeric for j in range(len(schema.numbers))]
        constant("to_number_order", places, torch.int64)

    # --- records as features ------------------------------------------------------------------------

    def observed(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Which fields have a value: (n, F), bool."""
        both = torch.cat([~torch.isnan(numbers), codes >= 0], dim=1)
        return columns_of(both, self.to_schema_order)

    def features(self, numbers: Tensor) -> Tensor:
        """Numeric features, (n, D), float32."""
        x = columns_of(numbers, self.numeric)
        u = (torch.where(torch.isnan(x), self.location, x) - self.location) / self.scale
        t = (bent(u.clamp(-FURTHEST, FURTHEST).float()) - self.centre) / self.width
        return torch.cat([t, *(cyclic(numbers[:, j]) for j in self.timestamps)], dim=1)

    def one_hot(self, codes: Tensor) -> Tensor:
        """(n, K); a missing value is all zeros."""
        return (columns_of(codes, self.owner_of_code) == self.code_within).float()

    def read(self, batch: Batch, most: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of about so many of a batch's records, evenly chosen: t (n, D), one_hot (n, K), observed (n, F)."""
        rows = evenly(len(batch), most)
        numbers, codes = torch.from_numpy(batch.numbers[rows]), torch.from_numpy(batch.codes[rows])
        return self.features(numbers), self.one_hot(codes), self.observed(numbers, codes).float()

    def shown_columns(self, t: Tensor, one_hot: Tensor, shown: Tensor) -> Tensor:
        """A record as one vector, (n, D + K): what is hidden or missing is 0, the middle of a number.

        `shown` (n, F) is 1 where the encoder may see the value.
        """
        of_feature, of_code = columns_of(shown, self.field_of_feature), columns_of(shown, self.field_of_one_hot)
        seen = t.clamp(-self.furthest_seen, self.furthest_seen)
        # Halving a variance of 2 per changed category: a category weighs as much as a number.
        return torch.cat([seen * of_feature, one_hot * of_code / math.sqrt(2)], dim=1)

    def place(self, t: Tensor, one_hot: Tensor, shown: Tensor) -> Tensor:
        """What is shown of a record as one vector, on the axes of the latents; (n, L), only with exemplars."""
        return self.shown_columns(t, one_hot, shown) @ self.turn

    def encode(self, t: Tensor, one_hot: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | what is shown of x), (n, L); with exemplars the latter is the same, (1, L)."""
        return self.encode_columns(self.shown_columns(t, one_hot, shown), shown)

    def encode_columns(self, columns: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """`encode`, of what is shown of a record as one vector (n, D + K)."""
        said = self.encoder(torch.cat([columns, 1 - shown], dim=1))
        if not self.with_exemplars:
            mean, log_variance = said.chunk(2, dim=1)
            return mean, log_variance.clamp(-12.0, 4.0)
        mean = columns @ self.turn + said
        # What the encoder adds was learnt where records lie; far from there it would only multiply.
        mean = torch.maximum(torch.minimum(mean, self.reach), -self.reach)
        return mean, self.log_variance

    # --- likelihoods --------------------------------------------------------------------------------

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Expected features (…, D) and logits of codes (…, K) of latents (…, L)."""
        said = self.decoder(z.flatten(0, -2)).reshape(*z.shape[:-1], self.n_features + self.n_codes)
        t, code_logit = said.split([self.n_features, self.n_codes], dim=-1)
        return t, _LOGIT_CAP * torch.tanh(code_logit / _LOGIT_CAP)

    def nll(self, z: Tensor, t: Tensor, one_hot: Tensor) -> Tensor:
        """NLL of each field given z, nats: (…, F), missing values included (mask them outside).

        z is (…, L); the other arguments broadcast against it.
        """
        return self.nll_of(self.decode(z), t, one_hot)

    def nll_of(self, restored: tuple[Tensor, Tensor], t: Tensor, one_hot: Tensor) -> Tensor:
        """`nll` given what was decoded."""
        expected, code_logit = restored
        scale = self.log_scale.clamp(math.log(MIN_SCALE), 5.0).exp()
        of_number = (numeric_nll(self.likelihood, (t - expected) / scale) + scale.log()) @ self.sum_features
        seen = one_hot * self.is_seen
        among_seen = ((code_logit.exp() * self.is_seen) @ self.sum_codes).log() - (code_logit * seen) @ self.sum_codes
        is_unseen = (one_hot - seen) @ self.sum_codes
        of_code = torch.lerp(among_seen + self.seen_nats, self.unseen_nats, is_unseen)
        return columns_of(torch.cat([of_number, of_code], dim=-1), self.to_schema_order)

    def expected_nll(
        self, mean: Tensor, log_variance: Tensor, t: Tensor, one_hot: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """E_q[NLL] of each field, (n, F), and what the decoder restores at the mean: by sigma points, nothing drawn.

        Exact for a quadratic along axes; along drawn directions, exact in the mean over their draws.
        """
        # Decoded at once: the mean first, then what the expectation over q is taken at.
        places = torch.cat([mean[:, None], self.sigma_points(mean, log_variance)], dim=1)
        expected, code_logit = self.decode(places)
        nll = self.nll_of((expected[:, 1:], code_logit[:, 1:]), t[:, None], one_hot[:, None])
        return nll.mean(dim=1), (expected[:, 0], code_logit[:, 0])

    def sigma_points(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """(n, P, L): mean ± √U · σ along each of the U directions, or the mean alone where there is none."""
        if not len(self.directions):
            return mean[:, None]
        step = (0.5 * log_variance).exp()[:, None] * self.directions
        return torch.cat([mean[:, None] + step, mean[:, None] - step], dim=1)

    # --- beside the likelihood ----------------------------------------------------------------------

    def distances(self, restored: tuple[Tensor, Tensor], t: Tensor, one_hot: Tensor) -> Tensor:
        """How far each value is from what the decoder restores, (n, D + C), missing values included.

        A number by its standard deviations, a category by what its probability lacks to 1.
        """
        expected, code_logit = restored
        mass = code_logit.exp() * self.is_seen
        probability = ((mass * one_hot) @ self.sum_codes) / (mass @ self.sum_codes)
        return torch.cat([(t - expected).abs(), 1 - probability], dim=1)

    def counted(self, shown: Tensor) -> Tensor:
        """Which distances are of values that are shown, (n, D + C)."""
        return columns_of(shown, self.field_of_distance)

    def evidence(self, restored: tuple[Tensor, Tensor], t: Tensor, one_hot: Tensor, shown: Tensor) -> Tensor:
        """Residual and, with exemplars, rarity: (n, 1 or 2), as `nelbo.calibration.Combination` has them."""
        filled = torch.where(self.counted(shown) > 0, self.distances(restored, t, one_hot), self.typical_distance)
        residual = (filled.mean(dim=1, keepdim=True) + _NO_RESIDUAL).log()
        if self.surroundings is None:
            return residual
        return torch.cat([residual, self.surroundings.rarity(self.place(t, one_hot, shown))], dim=1)

    # --- back to the field's own units --------------------------------------------------------------

    def expectations(self, restored: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """What the decoder expects, of its own answer: numbers (n, N), float64; codes (n, C)."""
        t, code_logit = restored
        n_numeric = len(self.location)
        u = unbent((t[:, :n_numeric] * self.width + self.centre).clamp(-_LONGEST_LOG, _LONGEST_LOG))
        x = u.double() * self.scale + self.location
        x = torch.maximum(torch.minimum(x, self.largest), -self.largest)
        # A timestamp's hour and weekday name no moment: nothing is expected of it.
        columns = torch.cat([x, t.new_zeros((t.shape[0], 1), dtype=torch.float64)], dim=1)
        offered = code_logit + self.offered
        likeliest = [offered[:, at : at + n].argmax(dim=1, keepdim=True) for at, n in self.code_ranges]
        codes = torch.cat(likeliest, dim=1) if likeliest else code_logit.long()
        return columns_of(columns, self.to_number_order), codes


class ScoreGraph(nn.Module):
    """What is exported: raw columns and a mask in; nats, expectations and latents out; nothing random."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, numbers: Tensor, codes: Tensor, hidden: Tensor) -> tuple[Tensor, ...]:
        """What `nelbo.scoring.Outputs` holds, in its order."""
        vae = self.vae
        shown = (vae.observed(numbers, codes) & ~hidden).float()
        t, one_hot = vae.features(numbers), vae.one_hot(codes)
        mean, log_variance = vae.encode(t, one_hot, shown)
        nll, restored = vae.expected_nll(mean, log_variance, t, one_hot)
        contributions = nll * shown
        evidence = vae.evidence(restored, t, one_hot, shown)
        return contributions, vae.prior.kl(mean, log_variance), evidence, *vae.expectations(restored), mean


def evenly(n: int, most: int) -> slice:
    """About so many of n records, spread over them."""
    return slice(None, None, max(1, n // most))


def columns_of(x: Tensor, positions: Tensor) -> Tensor:
    """x[..., positions]; exported, indexing is three nodes instead of one."""
    return torch.index_select(x, -1, positions)


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Dense layers with SiLU between them; the last starts near zero, so that a fit starts calm."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        last = nn.Linear(n_in, n_out)
        layers += [last, nn.SiLU()]
    if len(widths) > 2:
        with torch.no_grad():
            last.weight.mul_(0.1)
    return nn.Sequential(*layers[:-1])


def numeric_nll(likelihood: str, z: Tensor) -> Tensor:
    """NLL of a standardised distance, nats, without the log of the scale."""
    match likelihood:
        case "gaussian":
            return 0.5 * z.square() + 0.5 * math.log(2 * math.pi)
        case "laplace":
            return z.abs() + math.log(2)
        case "cauchy":
            return torch.log1p(z.square()) + math.log(math.pi)
        case _:  # Student's t
            nu = DEGREES
            constant = math.lgamma(nu / 2) - math.lgamma((nu + 1) / 2) + 0.5 * math.log(nu * math.pi)
            return (nu + 1) / 2 * torch.log1p(z.square() / nu) + constant


def bent(u: Tensor) -> Tensor:
    """`training.layout.bend`, on a tensor."""
    size = u.abs()
    return torch.where(size <= BEND, u, torch.sign(u) * BEND * (1 + (size.clamp_min(BEND) / BEND).log()))


def unbent(t: Tensor) -> Tensor:
    """The inverse of `bent`."""
    size = t.abs()
    return torch.where(size <= BEND, t, torch.sign(t) * BEND * (size.clamp_min(BEND) / BEND - 1).exp())


def cyclic(seconds: Tensor) -> Tensor:
    """Sine and cosine of the hour and of the weekday, (n, 4); the phase in double, since float32 resolves 128 s."""
    whole = torch.where(torch.isnan(seconds), torch.zeros_like(seconds), seconds).clamp(-_FURTHEST_S, _FURTHEST_S)
    phases = [(whole / period - torch.floor(whole / period)).float() * 2 * math.pi for period in (_DAY_S, _WEEK_S)]
    return torch.stack([f(phase) for phase in phases for f in (torch.sin, torch.cos)], dim=1)


def _membership(owner: Sequence[int], n_owners: int) -> Tensor:
    """The matrix (columns, owners) that sums columns by owner."""
    return (torch.tensor(owner, dtype=torch.int64)[:, None] == torch.arange(n_owners)).float()
