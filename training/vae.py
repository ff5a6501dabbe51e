"""The model, whole: from raw columns to nats.

Shapes: n records, N numbers (numeric and timestamp fields), C coded fields, F = N + C fields in the schema's
order, D numeric features, S of them with a spike, K codes over all coded fields, L latents, P sigma points.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from training.config import Config
from training.layout import BEND, FURTHEST, Layout

MAX_SIGMA_LATENTS = 16  # with more in use, the posterior mean alone: rank correlation to 4,096 draws was .998
_LOGIT_CAP = 20.0  # e^20 and its sums stay finite in float32; a category cannot surprise by more than 40 nats
_DAY_S, _WEEK_S = 86_400.0, 604_800.0
_FURTHEST_S = 2.0**50  # 35 million years; a power of two, since the exporter writes a bound down in float32
# The encoder sees no value further out than this; the likelihood does. Wilder inputs would only blow up the
# latents, let the decoder follow an outlier, and drown the arithmetic of the other fields in float32 noise.
_FURTHEST_SEEN = 10.0
_LONGEST_LOG = 343.0  # bend(1e30): what the decoder expects is kept where its inverse is a number


class VAE(nn.Module):
    """A variational autoencoder over mixed fields.

    −ELBO = Σ_f NLL_f + Σ_l KL_l in nats, of the record with its numbers transformed: centred, divided by a
    robust spread, bent beyond 5 of these, standardised.

    Args:
        layout: of the table.
        config: of the fit.
    """

    numeric: Tensor
    location: Tensor
    scale: Tensor
    largest: Tensor
    centre: Tensor
    width: Tensor
    min_scale: Tensor
    spike_columns: Tensor
    spike_values: Tensor
    spike_of_feature: Tensor
    has_spike: Tensor
    numeric_spike: Tensor
    to_schema_order: Tensor
    to_number_order: Tensor
    field_of_number: Tensor
    field_of_code: Tensor
    owner: Tensor
    owner_of_code: Tensor
    code_within: Tensor
    offered: Tensor
    sum_features: Tensor
    sum_codes: Tensor
    sum_spikes: Tensor

    def __init__(self, layout: Layout, config: Config) -> None:
        super().__init__()
        self.likelihood = config.likelihood
        self.furthest_seen = _FURTHEST_SEEN
        n_fields = len(layout.schema.fields)
        self.n_latents = config.n_latents or min(16, max(2, n_fields // 2))
        # Latents along which the expectation over q is taken; a fit leaves out those that collapsed.
        self.in_use = list(range(self.n_latents))
        self.n_features, self.n_spikes, self.n_codes = layout.n_features, len(layout.spikes), sum(layout.n_codes)
        self._register_layout(layout)
        n_in = self.n_features + self.n_spikes + self.n_codes + n_fields
        n_out = self.n_features + self.n_spikes + self.n_codes
        self.encoder = perceptron([n_in, *config.hidden, 2 * self.n_latents])
        self.decoder = perceptron([self.n_latents, *reversed(config.hidden), n_out])
        self.log_scale = nn.Parameter(torch.zeros(1 if config.shared_scale else self.n_features))

    def _register_layout(self, layout: Layout) -> None:
        schema = layout.schema

        def constant(name: str, values: object, kind: torch.dtype) -> None:
            self.register_buffer(name, torch.as_tensor(values, dtype=kind), persistent=False)

        self.timestamps = layout.timestamps
        self.spike_features = layout.spikes
        constant("numeric", layout.numeric, torch.int64)
        constant("location", layout.location, torch.float64)
        constant("scale", layout.scale, torch.float64)
        constant("largest", 1.7e308, torch.float64)
        constant("centre", layout.centre, torch.float32)
        constant("width", layout.width, torch.float32)
        constant("min_scale", layout.min_scale, torch.float32)
        constant("spike_columns", [layout.numeric[at] for at in layout.spikes], torch.int64)
        constant("spike_values", layout.spike_values, torch.float64)
        # Fields come as numbers and codes; the schema has them in one order.
        order = [schema.positions[column.name] for column in schema.numbers + schema.codes]
        constant("to_schema_order", [order.index(position) for position in range(len(order))], torch.int64)
        constant("field_of_number", order[: len(schema.numbers)], torch.int64)
        constant("field_of_code", order[len(schema.numbers) :], torch.int64)
        constant("owner", layout.feature_owner, torch.int64)
        constant("sum_features", _membership(layout.feature_owner, len(schema.numbers)), torch.float32)
        owner_of_code = [j for j, n in enumerate(layout.n_codes) for _ in range(n)]
        constant("owner_of_code", owner_of_code, torch.int64)
        constant("code_within", [code for n in layout.n_codes for code in range(n)], torch.int64)
        constant("sum_codes", _membership(owner_of_code, len(layout.n_codes)), torch.float32)
        # The likeliest category of a field: not "rare" or "unseen" unless nothing else is known.
        offered = [0.0 if code < max(1, n - 2) else -1e4 for n in layout.n_codes for code in range(n)]
        constant("offered", offered, torch.float32)
        self.code_ranges = [(sum(layout.n_codes[:j]), n) for j, n in enumerate(layout.n_codes)]
        spike_owner = [layout.numeric[at] for at in layout.spikes]
        constant("sum_spikes", _membership(spike_owner, len(schema.numbers)), torch.float32)
        constant("has_spike", [float(at in layout.spikes) for at in range(layout.n_features)], torch.float32)
        spike_of_feature = [layout.spikes.index(at) if at in layout.spikes else 0 for at in range(layout.n_features)]
        constant("spike_of_feature", spike_of_feature, torch.int64)
        n_numeric = len(layout.numeric)  # one past the last: the blank that stands for a timestamp
        places = [layout.numeric.index(j) if j in layout.numeric else n_numeric for j in range(len(schema.numbers))]
        constant("to_number_order", places, torch.int64)
        constant("numeric_spike", [float(at in layout.spikes) for at in range(len(layout.numeric))], torch.float64)

    # --- records as features ------------------------------------------------------------------------

    def observed(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """Which fields have a value: (n, F), bool."""
        both = torch.cat([~torch.isnan(numbers), codes >= 0], dim=1)
        return both[:, self.to_schema_order]

    def features(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Numeric features (n, D) and which of the spiked ones are their spike (n, S), both float32."""
        x = numbers[:, self.numeric]
        u = (torch.where(torch.isnan(x), self.location, x) - self.location) / self.scale
        t = (bent(u.clamp(-FURTHEST, FURTHEST).float()) - self.centre) / self.width
        at_spike = (numbers[:, self.spike_columns] == self.spike_values).float()
        if self.n_spikes:
            # A spike is said by its own feature; its number would only be one more outlier.
            t = t * (1 - at_spike[:, self.spike_of_feature[: t.shape[1]]] * self.has_spike[: t.shape[1]])
        return torch.cat([t, *(cyclic(numbers[:, j]) for j in self.timestamps)], dim=1), at_spike

    def one_hot(self, codes: Tensor) -> Tensor:
        """(n, K); a missing value is all zeros."""
        return (codes[:, self.owner_of_code] == self.code_within).float()

    def encode(self, t: Tensor, at_spike: Tensor, one_hot: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | what is shown of x), both (n, L).

        `shown` (n, F) is 1 where the encoder may see the value.
        """
        of_number, of_code = shown[:, self.field_of_number], shown[:, self.field_of_code]
        seen = t.clamp(-self.furthest_seen, self.furthest_seen)
        parts = [seen * of_number[:, self.owner], at_spike * of_number[:, self.spike_columns]]
        # Halving a variance of 2 per changed category: a category weighs as much as a number.
        parts += [one_hot * of_code[:, self.owner_of_code] / math.sqrt(2), 1 - shown]
        mean, log_variance = self.encoder(torch.cat(parts, dim=1)).chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 4.0)

    # --- likelihoods --------------------------------------------------------------------------------

    def decode(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Expected features (…, D), logits of spikes (…, S) and of codes (…, K)."""
        out = self.decoder(z)
        t, spike, code = out.split([self.n_features, self.n_spikes, self.n_codes], dim=-1)
        return t, spike, _LOGIT_CAP * torch.tanh(code / _LOGIT_CAP)

    def nll(self, z: Tensor, t: Tensor, at_spike: Tensor, one_hot: Tensor) -> Tensor:
        """NLL of each field given z, nats: (…, F), missing values included (mask them outside).

        z is (…, L); the other arguments broadcast against it.
        """
        expected, spike_logit, code_logit = self.decode(z)
        scale = torch.maximum(self.log_scale.clamp(-10.0, 5.0).exp(), self.min_scale)
        of_feature = numeric_nll(self.likelihood, (t - expected) / scale) + scale.log()
        if self.n_spikes:
            # A record at its spike has no number to be likely or not.
            off_spike = 1 - at_spike[..., self.spike_of_feature] * self.has_spike
            of_feature = of_feature * off_spike
        of_number = of_feature @ self.sum_features
        if self.n_spikes:
            sign = 2 * at_spike - 1
            of_number = of_number + nn.functional.softplus(-sign * spike_logit) @ self.sum_spikes
        of_code = (code_logit.exp() @ self.sum_codes).log() - (code_logit * one_hot) @ self.sum_codes
        return torch.cat([of_number, of_code], dim=-1)[..., self.to_schema_order]

    def expected_nll(self, mean: Tensor, log_variance: Tensor, t: Tensor, at_spike: Tensor, one_hot: Tensor) -> Tensor:
        """E_q[NLL] of each field, (n, F): by sigma points, exact for a quadratic; no random number in it."""
        z = self.sigma_points(mean, log_variance)
        return self.nll(z, t[:, None], at_spike[:, None], one_hot[:, None]).mean(dim=1)

    def sigma_points(self, mean: Tensor, log_variance: Tensor) -> Tensor:
        """(n, P, L): mean ± √U σ_l along each of the U axes in use, or the mean alone where these are many.

        A collapsed latent says the same of every record, and the decoder has learnt not to listen to it: its
        axis would only cost two more decodings.
        """
        if not 0 < len(self.in_use) <= MAX_SIGMA_LATENTS:
            return mean[:, None]
        spread = (0.5 * log_variance).exp() * math.sqrt(len(self.in_use))
        step = spread[:, None] * torch.eye(self.n_latents, device=mean.device, dtype=mean.dtype)[self.in_use]
        return torch.cat([mean[:, None] + step, mean[:, None] - step], dim=1)

    # --- back to the field's own units --------------------------------------------------------------

    def expectations(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder expects at the posterior mean: numbers (n, N), float64; codes (n, C)."""
        t, spike_logit, code_logit = self.decode(mean)
        n_numeric = len(self.location)
        u = unbent((t[:, :n_numeric] * self.width + self.centre).clamp(-_LONGEST_LOG, _LONGEST_LOG))
        x = u.double() * self.scale + self.location
        x = torch.maximum(torch.minimum(x, self.largest), -self.largest)
        if self.n_spikes:
            likely = (spike_logit > 0).double()[:, self.spike_of_feature[:n_numeric]] * self.numeric_spike
            x = x * (1 - likely) + self.spike_values[self.spike_of_feature[:n_numeric]] * likely
        # A timestamp's hour and weekday name no moment: nothing is expected of it.
        columns = torch.cat([x, torch.zeros_like(mean[:, :1]).double()], dim=1)
        offered = code_logit + self.offered
        likeliest = [offered[:, at : at + n].argmax(dim=1, keepdim=True) for at, n in self.code_ranges]
        codes = torch.cat(likeliest, dim=1) if likeliest else mean[:, :0].long()
        return columns[:, self.to_number_order], codes


class ScoreGraph(nn.Module):
    """What is exported: raw columns and a mask in; nats, expectations and latents out; nothing random."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, numbers: Tensor, codes: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Contributions (n, F), kl (n, L), expected_numbers (n, N), expected_codes (n, C), latents (n, L)."""
        vae = self.vae
        shown = (vae.observed(numbers, codes) & ~hidden).float()
        t, at_spike = vae.features(numbers)
        one_hot = vae.one_hot(codes)
        mean, log_variance = vae.encode(t, at_spike, one_hot, shown)
        contributions = vae.expected_nll(mean, log_variance, t, at_spike, one_hot) * shown
        numbers_expected, codes_expected = vae.expectations(mean)
        return contributions, kl_to_standard_normal(mean, log_variance), numbers_expected, codes_expected, mean


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


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(z_l | x) ‖ N(0, 1)) of each latent, nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


def numeric_nll(likelihood: str, z: Tensor) -> Tensor:
    """NLL of a standardised distance, nats, without the log of the scale."""
    match likelihood:
        case "gaussian":
            return 0.5 * z.square() + 0.5 * math.log(2 * math.pi)
        case "laplace":
            return z.abs() + math.log(2)
        case _:  # Student's t with one degree of freedom
            return torch.log1p(z.square()) + math.log(math.pi)


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
