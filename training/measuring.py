"""From a fit to the facts of its report, through the scorer that will serve."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nelbo.calibration import STATISTICS, Calibration, Scores, StatisticName, n_flagged_allowed, raised
from nelbo.decision import Decision, smallest_rate
from nelbo.records import Batch, take
from nelbo.schema import Column, Schema
from nelbo.scoring import Graph, Scored, Scorer, states, upward
from training.baselines import MAX_FIT, baseline_scores
from training.data import Data, n_distinct
from training.evaluate import LatentUse
from training.facts import (
    FALSE_ALARMS,
    RECALLS,
    CheckFacts,
    ColumnFacts,
    ComparisonFacts,
    DataFacts,
    DetectorFacts,
    Facts,
    FitFacts,
    Histogram,
    MapFacts,
    RateFacts,
    SkillFacts,
    SuspectFacts,
)
from training.injection import inject
from training.layout import Layout
from training.split import Rows
from training.verdict import comparison_sentence, findings

_MAX_ANOMALIES = 10_000  # as many as calibration-b at most; chosen
_N_BINS = 40
_N_LOSSES = 100
_N_NOMINAL = 24
_N_MAPPED, _N_MAPPED_ANOMALIES = 300, 150  # a page of dots; chosen
_MOST_SKILLS = 100  # fields; chosen
_SKILL_RUNS = 40_000  # records through the graph, a second or two; chosen
_MIN_HALF = 20  # records of half a calibration set that say anything of a rate; chosen


@dataclass(frozen=True)
class Fit:
    """What a fit left behind, before its bundle is written.

    Attributes:
        scorer: of the bundle to be.
        graph: the same one's, for what a scorer does not offer.
        data: with its split.
        layout: of the records fitted on.
        losses: step and nats per record.
        latents: their use.
        suspects: the most suspicious of the normal records.
        command: that fits it again.
        config: the TOML file of the command; None without one.
    """

    scorer: Scorer
    graph: Graph
    data: Data
    layout: Layout
    losses: Sequence[tuple[int, float]]
    latents: LatentUse
    suspects: SuspectFacts
    command: str
    config: str | None

    @property
    def by_time(self) -> bool:
        """The oldest records were fitted, the newest give the p-values."""
        return bool(self.data.schema.with_role("time"))


def facts_of(fit: Fit) -> Facts:
    """Everything that the report shows; some seconds."""
    manifest, scorer, data = fit.scorer.bundle.manifest, fit.scorer, fit.data
    seed = manifest.seed
    fit_part, part_b = data.part(data.split.fit), data.part(data.split.b)
    anomalies, kinds, source = _anomalies(fit, fit_part, part_b)
    normal, odd = scorer.score(part_b), scorer.score(anomalies)
    decision = normal.decision
    comparison = _comparison(fit, fit_part, (normal, odd), kinds, source) if len(anomalies) else None
    part_facts = _data(data, fit_part, by_time=fit.by_time)
    rate = _rate(decision)
    check = _check(normal.statistics["score"], decision.rate)
    return Facts(
        model=manifest.name,
        version=manifest.version,
        created=manifest.created,
        findings=findings(part_facts, rate, check, comparison, fit.latents),
        data=part_facts,
        fit=_fit(fit),
        rate=rate,
        comparison=comparison,
        histograms={name: _histogram(name, normal, odd) for name in STATISTICS},
        check=check,
        skill=_skill(fit.graph, scorer, part_b),
        map=_map(normal, odd, np.random.default_rng([seed, 12])),
        suspects=fit.suspects,
    )


# --- the table, the fit, the rate ----------------------------------------------------------------------


def _data(data: Data, fit_part: Batch, *, by_time: bool) -> DataFacts:
    missing, _ = states(data.schema, fit_part)
    shares = missing.mean(axis=0)
    return DataFacts(
        source=data.source.name,
        digest=data.digest,
        n_normal=len(data.normal),
        n_fit=len(data.split.fit),
        n_a=len(data.split.a),
        n_b=len(data.split.b),
        n_anomalies=len(data.anomalies),
        duplicates=_short(1 - n_distinct(_as_table(fit_part)) / len(fit_part)),
        by_time=by_time,
        columns=[_column(column, data.schema, shares) for column in data.schema.columns],
        warnings=list(data.warnings),
    )


def _column(column: Column, schema: Schema, missing: Scores) -> ColumnFacts:
    is_field = column.role == "field"
    return ColumnFacts(
        name=column.name,
        role=column.role,
        kind=column.kind,
        note=column.note,
        missing=_short(missing[schema.positions[column.name]]) if is_field else None,
        n_categories=len(column.known) if column.is_coded else None,
    )


def _as_table(batch: Batch) -> pa.Table:
    columns = [pa.array(column, from_pandas=True) for column in (*batch.numbers.T, *batch.codes.T)]  # NaN as null
    return pa.table(columns, names=[str(at) for at in range(len(columns))])


def _fit(fit: Fit) -> FitFacts:
    manifest = fit.scorer.bundle.manifest
    kept = np.unique(np.linspace(0, len(fit.losses) - 1, _N_LOSSES).astype(int))
    return FitFacts(
        losses=[(fit.losses[at][0], _short(fit.losses[at][1], 5)) for at in kept],
        kl=list(fit.latents.kl),
        n_active=fit.latents.n_active,
        mutual_information=fit.latents.mutual_information,
        parity=_short(manifest.metrics["parity"]),
        seed=manifest.seed,
        libraries=manifest.libraries,
        command=fit.command,
        config=fit.config,
    )


def _rate(decision: Decision) -> RateFacts:
    finite = {name: float(value) for name, value in decision.thresholds.items()}
    return RateFacts(
        rate=decision.rate,
        effective=_short(decision.effective_rate, 6),
        low=_short(decision.rate_low),
        high=_short(decision.rate_high),
        n_calibration=decision.n_calibration,
        smallest=smallest_rate(decision.n_calibration),
        thresholds={name: _short(value, 6) if np.isfinite(value) else None for name, value in finite.items()},
    )


# --- anomalies, and who finds them ---------------------------------------------------------------------


def _anomalies(
    fit: Fit, fit_part: Batch, part_b: Batch
) -> tuple[Batch, tuple[str, ...], Literal["labelled", "injected"]]:
    """Labelled anomalies, or else normal records with a wrong cell; and what is wrong in each."""
    seed = fit.scorer.bundle.manifest.seed
    labelled = fit.data.anomalies
    if len(labelled):
        rows = np.sort(np.random.default_rng([seed, 13]).permutation(len(labelled))[:_MAX_ANOMALIES])
        return take(labelled, rows), (), "labelled"
    donors = take(fit_part, _spread(len(fit_part), MAX_FIT))
    injected = inject(fit.layout, part_b, donors, np.random.default_rng([seed, 14]))
    return injected.batch, injected.kind, "injected"


def _comparison(
    fit: Fit,
    fit_part: Batch,
    scored: tuple[Scored, Scored],
    kinds: tuple[str, ...],
    source: Literal["labelled", "injected"],
) -> ComparisonFacts:
    normal, odd = scored
    both = _joined(normal.batch, odd.batch)
    is_anomaly = np.arange(len(both)) >= len(normal.batch)
    own = {name: upward(name, np.concatenate([part.statistics[name] for part in scored])) for name in STATISTICS}
    others = baseline_scores(fit.layout, fit_part, both, fit.scorer.bundle.manifest.seed)
    detectors = [
        *(_detector(name, own[name], is_anomaly, kinds, is_own=True) for name in STATISTICS),
        *(_detector(name, scores, is_anomaly, kinds, is_own=False) for name, scores in others.items()),
    ]
    return ComparisonFacts(
        source=source,
        n_normal=len(normal.batch),
        n_anomalies=len(odd.batch),
        n_fit=min(MAX_FIT, len(fit_part)),
        kinds={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        detectors=detectors,
        sentence=comparison_sentence(detectors, source),
    )


def _joined(first: Batch, second: Batch) -> Batch:
    return replace(
        first,
        numbers=np.concatenate([first.numbers, second.numbers]),
        codes=np.concatenate([first.codes, second.codes]),
        index=np.concatenate([first.index, second.index]),
        ids=[None] * (len(first) + len(second)),
        values={},
    )


def _detector(
    name: str, scores: Scores, is_anomaly: NDArray[np.bool_], kinds: tuple[str, ...], *, is_own: bool
) -> DetectorFacts:
    from sklearn.metrics import average_precision_score, roc_auc_score  # noqa: PLC0415  # heavy; only here

    has_curve = name == "score" or not is_own
    roc, pr = _curves(scores, is_anomaly) if has_curve else ([], [])
    normal, of_anomalies = scores[~is_anomaly], scores[is_anomaly]
    by_kind = {}
    for kind in dict.fromkeys(kinds):
        of_kind = of_anomalies[[other == kind for other in kinds]]
        labels = np.arange(len(normal) + len(of_kind)) >= len(normal)
        by_kind[kind] = _short(roc_auc_score(labels, np.concatenate([normal, of_kind])))
    return DetectorFacts(
        name=name,
        is_own=is_own,
        auroc=_short(roc_auc_score(is_anomaly, scores)),
        average_precision=_short(average_precision_score(is_anomaly, scores)),
        roc=roc,
        pr=pr,
        by_kind=by_kind,
    )


def _curves(scores: Scores, is_anomaly: NDArray[np.bool_]) -> tuple[list[float], list[float]]:
    """Share of anomalies found at each false-alarm rate, and precision at each recall; ties go together."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits = np.cumsum(is_anomaly[order])[last_of_tie]
    taken = np.arange(1, len(scores) + 1)[last_of_tie]
    n_anomalies = int(is_anomaly.sum())
    alarms = (taken - hits) / (len(scores) - n_anomalies)
    found = hits / n_anomalies
    at = np.searchsorted(alarms, FALSE_ALARMS, side="right")
    roc = np.concatenate([[0.0], found])[at]
    reached = np.searchsorted(found, np.array(RECALLS) - 1e-9, side="left")
    return [_short(value) for value in roc], [_short(value) for value in (hits / taken)[reached]]


def _histogram(name: StatisticName, normal: Scored, odd: Scored) -> Histogram:
    """Bins over the normal records and twice as far; what lies beyond is counted, not drawn."""
    of_normal, of_odd = (upward(name, part.statistics[name]) for part in (normal, odd))
    low = float(min(of_normal.min(), of_odd.min(initial=np.inf)))
    highest = float(of_normal.max())
    reach = float(np.quantile(of_odd, 0.9)) if of_odd.size else highest
    high = max(highest, min(reach, highest + (highest - low)))
    high = high if high > low else low + 1.0
    low, high = _short(low, 5), _short(high, 5)
    edges = np.append(np.linspace(low, high, _N_BINS + 1), np.inf)
    edges[0] = -np.inf  # rounding may have put the lowest outside
    threshold = normal.decision.thresholds[name]
    return Histogram(
        low=low,
        high=high,
        normal=np.histogram(of_normal, edges)[0].tolist(),
        anomalies=np.histogram(of_odd, edges)[0].tolist(),
        flagged=_short((of_odd > threshold).mean()) if of_odd.size else 0.0,
    )


# --- calibration ---------------------------------------------------------------------------------------


def _check(scores: Scores, rate: float) -> CheckFacts | None:
    """One half of calibration-b flagged by p-values from the other; by time, the newer by the older."""
    from scipy.stats import betabinom  # noqa: PLC0415  # heavy; only here

    half = len(scores) // 2
    if half < _MIN_HALF:
        return None
    p_values = Calibration(raised(scores[:half])).p_values(scores[half:])
    n = len(p_values)
    ks = np.unique(np.geomspace(1, half // 2, _N_NOMINAL).astype(int))
    nominal = ks / (half + 1)
    counts = (p_values[:, None] <= nominal).sum(axis=0)
    at = int(np.abs(ks - max(1, n_flagged_allowed(rate, half))).argmin())
    law = betabinom(n, ks, half + 1 - ks)
    p_value = np.minimum(1.0, 2 * np.minimum(law.cdf(counts), law.sf(counts - 1)))
    return CheckFacts(
        n_calibrating=half,
        n_checked=n,
        nominal=[_short(value) for value in nominal],
        realised=[_short(value) for value in counts / n],
        low=[_short(value) for value in law.ppf(0.05) / n],
        high=[_short(value) for value in law.ppf(0.95) / n],
        at=at,
        p_value=_short(p_value[at]),
    )


# --- fields and latents --------------------------------------------------------------------------------


def _skill(graph: Graph, scorer: Scorer, part_b: Batch) -> list[SkillFacts]:
    """−log p of each field, alone and given the others, by the chain rule from −ELBOs with fields hidden."""
    fields = scorer.schema.fields
    n = min(len(part_b), max(50, _SKILL_RUNS // (2 * min(len(fields), _MOST_SKILLS))))
    batch = take(part_b, np.arange(n))
    missing, _ = states(scorer.schema, batch)
    every = np.ones((n, len(fields)), dtype=np.bool_)
    full, empty = _energy(graph, batch, ~every), _energy(graph, batch, every)
    # Each field costs two runs over all fields: of a wide table, those that vary most must do.
    varying = np.argsort(-graph.run(batch).contributions.var(axis=0), kind="stable")[:_MOST_SKILLS]
    found = []
    for j in np.sort(varying).tolist():
        field = fields[j]
        present = ~missing[:, j]
        if not present.any():
            continue
        hidden = ~every
        hidden[:, j] = True
        given_others = (full - _energy(graph, batch, hidden))[present].mean()
        alone = (_energy(graph, batch, ~hidden) - empty)[present].mean()
        if field.is_coded:
            codes = batch.codes[present, scorer.schema.codes.index(field)]
            alone = min(alone, _surprise(scorer, field, codes))
        found.append(SkillFacts(field.name, int(present.sum()), _short(alone), _short(given_others)))
    return found


def _energy(graph: Graph, batch: Batch, hidden: NDArray[np.bool_]) -> Scores:
    outputs = graph.run(batch, hidden)
    return np.asarray(outputs.contributions.sum(axis=1) + outputs.kl.sum(axis=1))


def _surprise(scorer: Scorer, field: Column, codes: NDArray[np.int64]) -> float:
    """Mean −log frequency among the records fitted on, half a record added to every code."""
    counts = np.array(scorer.bundle.reference.fields[field.name].counts) + 0.5
    return float(-np.log(counts[codes] / counts.sum()).mean())


def _map(normal: Scored, odd: Scored, rng: np.random.Generator) -> MapFacts | None:
    """Latent means of some records along the first two directions in which those of normal ones differ most."""
    latents = normal.outputs.latents.astype(np.float64)
    active = np.flatnonzero(latents.var(axis=0) > 0.01)  # as `training.evaluate` counts them
    if active.size < 2:
        return None
    centre = latents[:, active].mean(axis=0)
    if active.size == 2:
        axes, labels = np.eye(2), [f"latent {at + 1}" for at in active]
    else:
        off = latents[:, active] - centre
        variances, directions = np.linalg.eigh(off.T @ off)  # the one of the smallest variance first
        # A direction's sign is arbitrary: its largest component points up.
        axes = np.stack([d * np.sign(d[np.abs(d).argmax()]) for d in directions.T[:-3:-1]])
        shares = variances[:-3:-1] / variances.sum()
        labels = [f"direction {at + 1} of {active.size} latents, {share:.0%}" for at, share in enumerate(shares)]

    def points(scored: Scored, most: int) -> list[tuple[float, float, float]]:
        rows = np.sort(rng.permutation(len(scored.batch))[:most])
        places = (scored.outputs.latents[rows][:, active] - centre) @ axes.T
        p_values = scored.p_values["score"][rows]
        return [(_short(x, 3), _short(y, 3), _short(p, 3)) for (x, y), p in zip(places, p_values, strict=True)]

    return MapFacts(labels[0], labels[1], points(normal, _N_MAPPED), points(odd, _N_MAPPED_ANOMALIES))


def _spread(n: int, most: int) -> Rows:
    """Row numbers of at most so many of n records, evenly spread over them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _short(value: float, digits: int = 4) -> float:
    """A number cut to a few significant digits."""
    return float(f"{float(value):.{digits}g}")
