"""The scorer: a bundle's graph, its combination and its calibration as one thing."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nelbo.admission import INPUTS, OUTPUTS
from nelbo.bundle import Bundle
from nelbo.calibration import EVIDENCE, SCORE_TOLERANCE, STATISTICS, Combination, Scores, StatisticName
from nelbo.decision import Decider, Decision
from nelbo.errors import BundleError, CalibrationError, RecordError
from nelbo.records import Batch, RecordDecoder
from nelbo.schema import Category, Schema
from nelbo.segments import ALL, Numbers
from nelbo.session import open_session

# Records per run of the graph: with these, what the graph works out in between stays in a core's cache. A run of 1,024
# records of 30 fields cost 15 % more a record, and of 64 as much (2026-11-25, a default fit, AMD EPYC).
CHUNK = 256

# Golden records may have been scored on another processor: float32 kernels differ by more than batches do.
_MOST_LATENTS = 1_024  # as many as a fit can be told to have
_REPLAY_TOLERANCE = 10 * SCORE_TOLERANCE


@dataclass(frozen=True)
class Outputs:
    """What the graph says of n records.

    Attributes:
        contributions: shape (n, n_fields), nats; 0 where the value is missing or hidden.
        kl: shape (n, n_parts), nats: of each latent, or one bound for all where the prior is a mixture.
        evidence: shape (n, 1 or 2), what `Combination.evidence` names.
        expected_numbers: shape (n, n_numbers), in each field's own unit.
        expected_codes: shape (n, n_codes), the likeliest category.
        latents: shape (n, n_latents), mean of q(z | x).
    """

    contributions: NDArray[np.float64]
    kl: NDArray[np.float64]
    evidence: NDArray[np.float64]
    expected_numbers: NDArray[np.float64]
    expected_codes: NDArray[np.int64]
    latents: NDArray[np.float32]


class Graph:
    """`score.onnx` in a session of one thread that does not spin.

    Args:
        schema: of the bundle.
        graph: the file's bytes.
        label: what to call it in errors.
    """

    def __init__(self, schema: Schema, graph: bytes, label: str) -> None:
        try:
            self._session = open_session(graph)
        except Exception as error:  # onnxruntime raises a dozen unrelated types for a graph it cannot read
            raise BundleError(f"{label}: score.onnx cannot be loaded: {error}") from error
        self._inputs = {node.name for node in self._session.get_inputs()}
        _refuse_other_interface(label, self._inputs, {node.name for node in self._session.get_outputs()})
        self._label = label
        self.schema = schema
        self._nothing = np.zeros((CHUNK, len(schema.fields)), dtype=np.bool_)
        shape = {node.name: node.shape for node in self._session.get_outputs()}["evidence"]
        self.n_evidence = shape[-1] if shape else None

    def run(self, batch: Batch, hidden: NDArray[np.bool_] | None = None) -> Outputs:
        """The graph's outputs for a batch.

        Args:
            batch: n records.
            hidden: shape (n, n_fields); True treats the value as missing.
        """
        n = len(batch)
        hidden = self._nothing_hidden(n) if hidden is None else hidden
        parts = [self._run(batch.numbers[rows], batch.codes[rows], hidden[rows]) for rows in _chunks(n)]
        joined = parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
        *nats, numbers, codes, latents = joined
        contributions, kl, evidence = (part.astype(np.float64) for part in nats)
        return Outputs(contributions, kl, evidence, numbers, codes, latents)

    def _nothing_hidden(self, n: int) -> NDArray[np.bool_]:
        if n > len(self._nothing):
            return np.zeros((n, len(self.schema.fields)), dtype=np.bool_)
        return self._nothing[:n]

    def _run(
        self, numbers: NDArray[np.float64], codes: NDArray[np.int64], hidden: NDArray[np.bool_]
    ) -> list[NDArray[Any]]:
        feed = {"numbers": numbers, "codes": codes, "hidden": hidden}
        try:
            found = list(self._session.run(list(OUTPUTS), {k: v for k, v in feed.items() if k in self._inputs}))
        except Exception as error:  # as above
            raise BundleError(f"{self._label}: score.onnx cannot be run: {error}") from error
        self._expect_shapes(found, len(numbers))
        return found

    def _expect_shapes(self, found: list[NDArray[Any]], n: int) -> None:
        """Refuses outputs wider than they mean: the probe sees a chunk of records, a request puts many together."""
        contributions, kl, evidence, *expected, latents = found
        widths = [len(self.schema.fields), len(self.schema.numbers), len(self.schema.codes)]
        if [part.shape for part in (contributions, *expected)] != [(n, width) for width in widths]:
            raise BundleError(f"{self._label}: score.onnx answers for other fields than schema.json has")
        for part, most in ((kl, _MOST_LATENTS), (evidence, len(EVIDENCE)), (latents, _MOST_LATENTS)):
            if part.ndim != 2 or len(part) != n or part.shape[1] > most:
                raise BundleError(
                    f"{self._label}: score.onnx: expected outputs of {n} records by at most {most}, got {part.shape}"
                )


def _refuse_other_interface(label: str, inputs: set[str], outputs: set[str]) -> None:
    if not inputs <= set(INPUTS):
        raise BundleError(f"{label}: score.onnx: expected inputs {', '.join(INPUTS)}, got {', '.join(sorted(inputs))}")
    if not outputs >= set(OUTPUTS):
        raise BundleError(
            f"{label}: score.onnx: expected outputs {', '.join(OUTPUTS)}, got {', '.join(sorted(outputs))}"
        )


def _chunks(n: int) -> Iterator[slice]:
    # No records still make one run, so that every output has its shape.
    return (slice(start, start + CHUNK) for start in range(0, max(n, 1), CHUNK))


@dataclass(frozen=True)
class Scored:
    """A batch and everything that is said of each of its n records.

    Attributes:
        contributions: shape (n, n_fields), nats; a missing value is charged what is typical of its field.
        missing: shape (n, n_fields).
        unseen: shape (n, n_fields); a category that training did not see.
        kl: shape (n,), nats.
        statistics: `score`, `elbo` (lower = more anomalous) and `reconstruction_error`, each shape (n,).
        p_values: of each statistic, shape (n,).
        flagged: shape (n,).
        decision: what held for all of them.
        segments: shape (n,), the number of the segment that each is of; -1 for none. `decision.judges` says which of
            them have calibration records of their own.
    """

    batch: Batch
    outputs: Outputs
    contributions: NDArray[np.float64]
    missing: NDArray[np.bool_]
    unseen: NDArray[np.bool_]
    kl: Scores
    statistics: dict[StatisticName, Scores]
    p_values: dict[StatisticName, Scores]
    flagged: NDArray[np.bool_]
    decision: Decision
    segments: Numbers

    def part(self, rows: slice) -> "Scored":
        """Some of the records, with the decision that held for all."""
        batch, outputs = self.batch, self.outputs
        values = {name: of[rows] for name, of in batch.values.items()}
        return Scored(
            Batch(batch.numbers[rows], batch.codes[rows], batch.index[rows], batch.ids[rows], values),
            Outputs(*(getattr(outputs, part.name)[rows] for part in fields(outputs))),
            self.contributions[rows],
            self.missing[rows],
            self.unseen[rows],
            self.kl[rows],
            {name: of[rows] for name, of in self.statistics.items()},
            {name: of[rows] for name, of in self.p_values.items()},
            self.flagged[rows],
            self.decision,
            self.segments[rows],
        )


class Scorer:
    """Scores records with one bundle; the same record gets the same score in any batch.

    Args:
        bundle: read and verified.
        graph: to judge by instead of the bundle's own.

    Raises:
        BundleError: the graph cannot be loaded, or does not fit the rest of the bundle.
    """

    def __init__(self, bundle: Bundle, graph: Graph | None = None) -> None:
        self.bundle = bundle
        self.schema = bundle.schema
        self.decoder = RecordDecoder(bundle.schema, bundle.label)
        try:
            self.decider = Decider(bundle.calibration)
            self._decision = self.decider.decide()
        except CalibrationError as error:
            raise BundleError(f"bundle '{bundle.label}': calibration.json: {error}") from error
        self._graph = graph or Graph(bundle.schema, bundle.graph, f"bundle '{bundle.label}'")
        if bundle.calibration.combination.fields != tuple(field.name for field in self.schema.fields):
            raise BundleError(
                f"bundle '{bundle.label}': calibration.json was made for other fields than schema.json has"
            )
        if self._graph.n_evidence != len(bundle.calibration.combination.evidence):
            raise BundleError(f"bundle '{bundle.label}': calibration.json was made for another graph than score.onnx")
        self._segment_of_code, self._segment_column = self._segment_codes()

    def _segment_codes(self) -> tuple[Numbers | None, int]:
        """The segment of each code of the field that segments are of, and that field's column among the codes."""
        segments = self.bundle.calibration.segments
        if segments is None:
            return None, 0
        try:
            by_code = segments.by_code(self.schema)
        except ValueError as error:
            raise BundleError(f"bundle '{self.bundle.label}': calibration.json: {error}") from error
        return by_code, [field.name for field in self.schema.codes].index(segments.field)

    def score(self, batch: Batch, decision: Decision | None = None) -> Scored:
        """Statistics, p-values and flags of a batch.

        Args:
            batch: of this bundle's decoder.
            decision: of this scorer's decider; None for the bundle's own rate.
        """
        decision = decision or self._decision
        outputs = self._graph.run(batch)
        missing, unseen = states(self.schema, batch)
        statistics, contributions, kl = combine(self.bundle.calibration.combination, outputs, missing, unseen)
        segments = self._segments_of(batch)
        judges = decision.judges(segments) if decision.segments else None
        p_values = {name: self.decider.p_values(name, upward(name, statistics[name]), judges) for name in STATISTICS}
        flagged = statistics["score"] > decision.threshold("score", segments)
        return Scored(
            batch, outputs, contributions, missing, unseen, kl, statistics, p_values, flagged, decision, segments
        )

    def segment_named(self, number: int) -> bool | Category | None:
        """The category that a segment is of; None for the number of all records."""
        segments = self.bundle.calibration.segments
        return None if segments is None or number == ALL else segments.values[number]

    def discover(self, batch: Batch, fdr: float) -> Scored:
        """As `score`, but flagged so that of the flagged records of this batch a share of `fdr` at most is normal.

        Args:
            batch: of this bundle's decoder.
            fdr: false discovery rate.
        """
        scored = self.score(batch, self.decider.decide())
        counts = self.decider.count_ranks(scored.statistics["score"], scored.decision.judges(scored.segments))
        decision = self.decider.discover(counts, fdr)
        flagged = scored.statistics["score"] > decision.threshold("score", scored.segments)
        return replace(scored, decision=decision, flagged=flagged)

    def _segments_of(self, batch: Batch) -> Numbers:
        """The segment that each record is of."""
        if self._segment_of_code is None:
            return np.full(len(batch), ALL, dtype=np.intp)
        # A missing value has the code -1, which is the place of "unseen": ALL as well.
        return self._segment_of_code[batch.codes[:, self._segment_column]]

    def without(self, batch: Batch, hidden: NDArray[np.bool_]) -> Outputs:
        """What the graph says of records of which fields are hidden.

        Args:
            batch: of this bundle's decoder.
            hidden: shape (n, n_fields); True treats the value as missing.
        """
        return self._graph.run(batch, hidden)

    def replay(self) -> None:
        """Scores the golden records again.

        Raises:
            BundleError: one of them scores differently from when the bundle was exported.
        """
        golden = self.bundle.golden
        try:
            scored = self.score(self.decoder.objects([entry.record for entry in golden]))
        except CalibrationError as error:
            raise BundleError(f"bundle '{self.bundle.label}': golden records: {error}") from error
        if scored.batch.errors:
            raise unreadable(self.bundle, scored.batch.errors[0])
        for name in STATISTICS:
            expected = np.array([getattr(entry, name) for entry in golden])
            off = np.abs(scored.statistics[name] - expected) > _REPLAY_TOLERANCE * np.maximum(1, np.abs(expected))
            if off.any():
                raise BundleError(
                    f"bundle '{self.bundle.label}': golden record {int(off.argmax())} no longer gets its {name}; "
                    "this machine computes the model differently from the one that exported it"
                )


def unreadable(bundle: Bundle, error: RecordError) -> BundleError:
    """What is wrong with a golden record, without its value: it is a record of the training, and this may be logged."""
    where = "" if error.field is None else f", field '{error.field}'"
    return BundleError(f"bundle '{bundle.label}': golden record {error.index}{where}: expected {error.expected}")


def states(schema: Schema, batch: Batch) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which values are missing, and which are categories that training did not see.

    Returns:
        Two arrays of shape (n, n_fields).
    """
    shape = len(batch), len(schema.fields)
    missing, unseen = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    numbers, codes, unseen_codes = schema.places
    missing[:, numbers] = np.isnan(batch.numbers)
    if codes:
        missing[:, codes] = batch.codes < 0
        unseen[:, codes] = batch.codes == unseen_codes
    return missing, unseen


def combine(
    combination: Combination, outputs: Outputs, missing: NDArray[np.bool_], unseen: NDArray[np.bool_]
) -> tuple[dict[StatisticName, Scores], NDArray[np.float64], Scores]:
    """The three statistics, the contributions and the KL of each record, in float64."""
    contributions = outputs.contributions
    if missing.any():
        contributions = np.where(missing, combination.typical_contributions, contributions)
    kl = outputs.kl.sum(axis=1)
    reconstruction_error = contributions.sum(axis=1)
    statistics: dict[StatisticName, Scores] = {
        "score": combination.score(contributions, kl, outputs.evidence) + novelty(contributions, unseen),
        "elbo": -(reconstruction_error + kl),
        "reconstruction_error": reconstruction_error,
    }
    return statistics, contributions, kl


def novelty(contributions: NDArray[np.float64], unseen: NDArray[np.bool_]) -> Scores:
    """What a record's unseen categories say, shape (n,), nats: −log of the chance of one, which each field has learnt.

    In the score it counts in full, beside the other parts: to −ELBO it is one field among many, and it is nothing that
    a part's normal records could tell, since hardly any of them has it. docs/decisions/0001.

    Args:
        contributions: shape (n, n_fields), nats.
        unseen: shape (n, n_fields).
    """
    if not unseen.any():  # as in most batches
        return np.zeros(len(unseen))
    found: Scores = np.where(unseen, contributions, 0.0).sum(axis=1)
    return found


def upward(name: StatisticName, values: Scores) -> Scores:
    """A statistic in the direction higher = more anomalous."""
    return -values if name == "elbo" else values
