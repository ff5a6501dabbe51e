"""`report.html`: the facts of a fit as one page that a person reads, and two of them side by side.

One file without scripts that fetches nothing; its own policy forbids both. Names of fields and categories come
from strangers: the templates escape everything, and the charts do.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nelbo.bundle import read_bundle
from nelbo.calibration import STATISTICS
from nelbo.errors import BundleError
from nelbo.store import find_bundle
from training.charts import Bar, Plot, bars, cut, steps
from training.facts import (
    FALSE_ALARMS,
    RECALLS,
    CheckFacts,
    ComparisonFacts,
    DetectorFacts,
    Facts,
    Histogram,
    MapFacts,
    SkillFacts,
    Suspect,
    parse,
)
from training.injection import KINDS
from training.verdict import TIE, percent

FACTS, PAGE = "report.json", "report.html"
_TELLS = 0.05  # nats; less is within the noise of some hundred records. Chosen
_MOST_BARS = 30  # fields drawn; a page of bars is enough
_MOST_COLUMNS = 200  # listed, so that a table of thousands still makes a small page
# Line style of each detector; dashes too, since not everybody tells colours apart.
_STYLES = {"score": "own", "Isolation Forest": "forest", "kNN": "knn", "PCA": "pca"}


@dataclass(frozen=True)
class Figure:
    """A chart with what is needed to read it.

    Attributes:
        caption: what it shows, as a finding.
        svg: the chart.
        legend: style and meaning of each mark.
        note: small print.
    """

    caption: str
    svg: Markup
    legend: Sequence[tuple[str, str]] = ()
    note: str = ""


@dataclass(frozen=True)
class Found:
    """The facts of a bundle.

    Attributes:
        folder: of the bundle.
        facts: from its `report.json`.
        has_page: it holds `report.html` too.
    """

    folder: Path
    facts: Facts
    has_page: bool


def read_facts(reference: str, models: Path) -> Found:
    """The facts in a bundle that is whole.

    Args:
        reference: a folder, or NAME[@version|@alias].
        models: the store's folder.

    Raises:
        BundleError: the bundle is damaged, or has no report.
        StoreError: there is no such bundle.
    """
    folder = find_bundle(reference, models)
    bundle = read_bundle(folder)
    files = bundle.manifest.files
    if FACTS not in files:
        why = "it was made without one"
        if "calibration_source" in bundle.manifest.data:
            why = "it was calibrated anew, and the report of its fit tells of other thresholds"
        raise BundleError(f"bundle '{bundle.label}' has no report: {why}; nelbo fit writes one")
    facts = parse((folder / FACTS).read_bytes(), f"bundle '{bundle.label}'")
    return Found(folder, facts, PAGE in files)


def page(facts: Facts) -> bytes:
    """The report of one fit."""
    return _render(
        "report.html",
        facts=facts,
        dropped=[c for c in facts.data.columns if c.role != "field" and (c.note or c.role == "ignored")],
        # What was dropped stands in a table of its own.
        warnings=[warning for warning in facts.data.warnings if "is not a field: " not in warning],
        columns=facts.data.columns[:_MOST_COLUMNS],
        distributions=_distributions(facts),
        curves=_curves(facts.comparison),
        n_fields=sum(column.role == "field" for column in facts.data.columns),
        n_told=sum(one.gain > _TELLS for one in facts.skill),
        check=_check_figure(facts.check) if facts.check else None,
        skill=_skill_figure(facts.skill),
        kl=_kl_figure(facts.fit.kl),
        losses=_loss_figure(facts.fit.losses),
        latent_map=_map_figure(facts.map, facts.comparison) if facts.map else None,
    )


def comparison_page(first: Facts, second: Facts) -> bytes:
    """Two fits side by side."""
    return _render(
        "compare.html",
        first=first,
        second=second,
        sentence=better(first, second),
        rows=_side_by_side(first, second),
        detectors=_paired_detectors(first, second),
        skill=_paired_skill(first, second),
    )


def better(first: Facts, second: Facts) -> str:
    """Which of two fits is better, or why that cannot be said."""
    if first.comparison is None or second.comparison is None:
        return "One of the two was compared with nothing, so this cannot say which is better."
    if not _same_test(first, second):
        return (
            "These two were judged on different records: the numbers stand beside each other, but do not say "
            "which model is better. To compare models, fit both on one table with one seed, or run nelbo evaluate on "
            "one labelled table."
        )
    a, b = first.comparison.own, second.comparison.own
    auroc, precision = b.auroc - a.auroc, b.average_precision - a.average_precision
    pair = (
        f"AUROC {a.auroc:.3f} and {b.auroc:.3f}, average precision {a.average_precision:.3f} and "
        f"{b.average_precision:.3f}, on the same records"
    )
    if max(abs(auroc), abs(precision)) <= TIE:
        return f"Neither is better by more than chance makes: {pair}."
    if auroc >= -TIE and precision >= -TIE:
        return f"B, {second.label}, is better: {pair}."
    if auroc <= TIE and precision <= TIE:
        return f"A, {first.label}, is better: {pair}."
    return f"Each is better by one measure: {pair}."


def _same_test(first: Facts, second: Facts) -> bool:
    def test(facts: Facts) -> object:
        data, compared = facts.data, facts.comparison
        # Injected anomalies depend on which columns are fields; labelled ones do not.
        names = [c.name for c in data.columns if c.role == "field"] if compared and compared.kinds else []
        counts = (data.n_normal, data.n_b, data.n_anomalies, data.by_time)
        return data.digest, facts.fit.seed, counts, compared and compared.source, names

    return test(first) == test(second)


# --- charts of one fit ---------------------------------------------------------------------------------


def _distributions(facts: Facts) -> list[Figure]:
    labels = {"score": "score", "elbo": "−ELBO, nats", "reconstruction_error": "reconstruction error, nats"}
    figures = []
    for name in STATISTICS:
        histogram = facts.histograms[name]
        figures.append(_distribution(facts, histogram, labels[name], facts.rate.thresholds[name]))
    return figures


def _distribution(facts: Facts, histogram: Histogram, label: str, threshold: float | None) -> Figure:
    normal, anomalies = (_shares(counts) for counts in (histogram.normal, histogram.anomalies))
    top = max([*normal[:-1], *anomalies[:-1], 0.01])
    plot = Plot(
        f"Distribution of {label}",
        (histogram.low, histogram.high, f"{label} (odder →)"),
        (0.0, top * 1.08, "share of each set"),
        y_percent=True,
    )
    plot.area(steps(histogram.low, histogram.high, normal[:-1]), "normal")
    what = _anomalies_in_words(facts.comparison)
    if sum(histogram.anomalies):
        plot.line(steps(histogram.low, histogram.high, anomalies[:-1]), "anomaly")
    if threshold is not None:
        plot.upright(threshold, "threshold")
    n_beyond = histogram.anomalies[-1]
    beyond = f"{n_beyond:,} of the anomalies lie further right than the chart." if n_beyond else ""
    caption = f"{_kind_of(label)} finds {histogram.flagged:.0%} of the anomalies beyond its threshold"
    if not sum(histogram.anomalies):
        caption = f"{_kind_of(label)} of held-out normal records"
    return Figure(
        caption,
        plot.svg(),
        [("area normal", f"{sum(histogram.normal):,} held-out normal records"), ("line anomaly", what)]
        if what
        else [("area normal", f"{sum(histogram.normal):,} held-out normal records")],
        beyond,
    )


def _kind_of(label: str) -> str:
    return {"score": "The score, which decides,", "−ELBO, nats": "The ELBO alone"}.get(
        label, "The reconstruction error alone"
    )


def _anomalies_in_words(comparison: ComparisonFacts | None) -> str:
    if comparison is None:
        return ""
    kind = "labelled anomalies" if comparison.source == "labelled" else "injected wrong cells"
    return f"{comparison.n_anomalies:,} {kind}"


def _shares(counts: Sequence[int]) -> list[float]:
    return [count / max(1, sum(counts)) for count in counts]


def _curves(comparison: ComparisonFacts | None) -> list[Figure]:
    if comparison is None:
        return []
    roc = Plot(
        "ROC curves",
        (0.0, 1.0, "share of normal records flagged"),
        (0.0, 1.0, "share of anomalies found"),
        x_percent=True,
        y_percent=True,
    )
    pr = Plot(
        "Precision-recall curves",
        (0.0, 1.0, "share of anomalies found"),
        (0.0, 1.0, "share of alarms that are right"),
        x_percent=True,
        y_percent=True,
    )
    roc.line([(0.0, 0.0), (1.0, 1.0)], "chance")
    drawn = [detector for detector in comparison.detectors if detector.roc]
    for detector in sorted(drawn, key=lambda detector: detector.is_own):  # the own curve on top
        style = _STYLES.get(detector.name, "chance")
        roc.line(list(zip(FALSE_ALARMS, detector.roc, strict=True)), style)
        pr.line(list(zip(RECALLS, detector.pr, strict=True)), style)
    best, sharpest = _best(comparison, "auroc"), _best(comparison, "average_precision")
    base = comparison.n_anomalies / (comparison.n_anomalies + comparison.n_normal)

    def legend(measure: str) -> list[tuple[str, str]]:
        return [(f"line {_STYLES.get(d.name, 'chance')}", f"{_named(d)} {getattr(d, measure):.3f}") for d in drawn]

    return [
        Figure(f"ROC: {_named(best)} is ahead, AUROC {best.auroc:.3f}", roc.svg(), legend("auroc")),
        Figure(
            f"Precision and recall: {_named(sharpest)} is ahead, average precision {sharpest.average_precision:.3f}",
            pr.svg(),
            legend("average_precision"),
            f"Average precision depends on the share of anomalies, here {base:.1%}: with fewer "
            "of them, fewer alarms are right.",
        ),
    ]


def _best(comparison: ComparisonFacts, measure: str) -> DetectorFacts:
    return max((d for d in comparison.detectors if d.roc), key=lambda detector: float(getattr(detector, measure)))


def _named(detector: DetectorFacts) -> str:
    return "this model" if detector.name == "score" else detector.name


def _check_figure(check: CheckFacts) -> Figure:
    low = check.nominal[0] * 0.8
    plot = Plot(
        "Asked and realised false-alarm rates",
        (low, check.nominal[-1] * 1.05, "rate asked for"),
        (max(low / 4, 1e-5), 1.0, "rate realised"),
        log=True,
        x_percent=True,
        y_percent=True,
    )
    upper = list(zip(check.nominal, check.high, strict=True))
    lower = list(zip(check.nominal, check.low, strict=True))
    plot.area([*upper, *reversed(lower)], "band")
    plot.line([(x, x) for x in check.nominal], "chance")
    plot.line(list(zip(check.nominal, check.realised, strict=True)), "own")
    plot.dots(list(zip(check.nominal, check.realised, strict=True)), "own")
    inside = sum(a <= x <= b for a, x, b in zip(check.low, check.realised, check.high, strict=True))
    return Figure(
        f"{inside} of {len(check.nominal)} rates were realised within their 90 % band",
        plot.svg(),
        [("line own", "realised"), ("line chance", "as asked"), ("area band", "90 % band (beta-binomial)")],
        "Each rate has its own band; neighbouring points share records and stray together. "
        "A rate of 0 is drawn at the lower edge.",
    )


def _skill_figure(skill: Sequence[SkillFacts]) -> Figure:
    ordered = sorted(skill, key=lambda one: -one.gain)[:_MOST_BARS]
    # In nats of a density the level of a numeric field depends on its unit; only the gain means something.
    most = max((one.gain for one in ordered), default=1.0)
    rows = [Bar(one.field, [(max(one.gain, 0.0), "normal")], f"{_signed(one.gain)} nats") for one in ordered]
    more = f" The {_MOST_BARS} largest of {len(skill)} are drawn." if len(skill) > _MOST_BARS else ""
    return Figure(
        "What the other fields tell of each",
        bars("What the other fields tell of each field", rows, max(most, 0.1)),
        note="Nats by which the other fields sharpen the model's guess at this one. The guess without them is the "
        f"model's own: where that is poor, the gain looks larger.{more}",
    )


def _kl_figure(kl: Sequence[float]) -> Figure:
    rows = [Bar(f"latent {i + 1}", [(value, "normal")], f"{value:.2f} nats") for i, value in enumerate(kl)]
    return Figure(
        "What each latent says of a record",
        bars("What each latent says of a record", rows[:_MOST_BARS], max([*kl, 0.1])),
        note="Mean KL to the normal of all records: what a latent says of one. Near 0, nothing.",
    )


def _loss_figure(losses: Sequence[tuple[float, float]]) -> Figure:
    values = [loss for _, loss in losses]
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    plot = Plot("Loss by step", (0.0, losses[-1][0], "step"), (low - room, high + room, "nats per record"))
    plot.line(list(losses), "own")
    return Figure(
        f"The loss went from {values[0]:.2f} to {values[-1]:.2f} nats per record",
        plot.svg(),
        note="As training sees it: with hidden fields and noisy latents, or, under a standard normal prior, without "
        "the KL at first, so that it may rise. It is not the −ELBO of the finished model.",
    )


def _map_figure(latent_map: MapFacts, comparison: ComparisonFacts | None) -> Figure:
    spans = [_span([p[axis] for p in latent_map.normal], [p[axis] for p in latent_map.anomalies]) for axis in (0, 1)]
    plot = Plot("Latent map", (*spans[0], latent_map.x_label), (*spans[1], latent_map.y_label))
    grades = [("p1", 0.5, 1.01), ("p2", 0.1, 0.5), ("p3", 0.01, 0.1), ("p4", -1.0, 0.01)]
    for style, low, high in grades:
        plot.dots([(x, y) for x, y, p in latent_map.normal if low < p <= high], style)
    plot.crosses([(x, y) for x, y, _ in latent_map.anomalies], "anomaly")
    legend = [
        ("dots p1", "normal, p > 0.5"),
        ("dots p2", "0.1 to 0.5"),
        ("dots p3", "0.01 to 0.1"),
        ("dots p4", "0.01 or less: odd"),
    ]
    what = _anomalies_in_words(comparison)
    if latent_map.anomalies:
        legend.append(("cross anomaly", what.split(" ", 1)[1]))
    return Figure(
        "Where records lie among the latents",
        plot.svg(),
        legend,
        f"{len(latent_map.normal)} held-out normal records and {len(latent_map.anomalies)} anomalies, drawn at random; "
        "those far out lie at the edge. An anomaly among normal ones is found by its fields, not by its place.",
    )


def _span(normal: Sequence[float], anomalies: Sequence[float]) -> tuple[float, float]:
    """An axis that holds the normal values, and others as long as the normal ones fill half of it."""
    low, high = min(normal), max(normal)
    room = (high - low) / 2 or 0.5
    furthest = [*anomalies, low, high]
    return max(low - room, min(furthest)) - room / 10, min(high + room, max(furthest)) + room / 10


# --- two fits side by side -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One line of a table of two; `mark` names the better one, if there is one."""

    name: str
    first: str
    second: str
    mark: str = ""


def _side_by_side(first: Facts, second: Facts) -> dict[str, list[Row]]:
    both = (first, second)

    def row(name: str, *values: object) -> Row:
        texts = [str(value) for value in values]
        return Row(name, texts[0], texts[1], "differs" if texts[0] != texts[1] else "")

    return {
        "Data": [
            row("table", *(f.data.source for f in both)),
            row("digest", *(f.data.digest[:12] for f in both)),
            row("normal records", *(f"{f.data.n_normal:,}" for f in both)),
            row("fitted on", *(f"{f.data.n_fit:,}" for f in both)),
            row("labelled anomalies", *(f"{f.data.n_anomalies:,}" for f in both)),
            row("fields", *(sum(c.role == "field" for c in f.data.columns) for f in both)),
            row("duplicates", *(f"{f.data.duplicates:.1%}" for f in both)),
        ],
        "False alarms": [
            row("calibration records", *(f"{f.rate.n_calibration:,}" for f in both)),
            row("effective rate", *(percent(f.rate.effective) for f in both)),
            row("true rate, with 90 %", *(f"{percent(f.rate.low)} to {percent(f.rate.high)}" for f in both)),
            *(
                row(f"threshold of {name.replace('_', ' ')}", *(_number(f.rate.thresholds[name]) for f in both))
                for name in STATISTICS
            ),
            row("one half checked by the other", *(_checked(f.check) for f in both)),
        ],
        "Fit": [
            row("last loss, nats", *(f"{f.fit.losses[-1][1]:.3f}" for f in both)),
            row("latents in use", *(f"{f.fit.n_active} of {len(f.fit.kl)}" for f in both)),
            row("seed", *(f.fit.seed for f in both)),
        ],
    }


def _checked(check: CheckFacts | None) -> str:
    return (
        "too few records"
        if check is None
        else f"{percent(check.realised[check.at])} at {percent(check.nominal[check.at])}"
    )


def _paired_detectors(first: Facts, second: Facts) -> list[Row]:
    by_name = [{d.name: d for d in f.comparison.detectors} if f.comparison else {} for f in (first, second)]
    comparable = _same_test(first, second)
    rows = []
    for name in [*by_name[0], *(n for n in by_name[1] if n not in by_name[0])]:
        found = [detectors.get(name) for detectors in by_name]
        texts = [f"{d.auroc:.3f} / {d.average_precision:.3f}" if d else "—" for d in found]
        mark = ""
        if comparable and found[0] and found[1] and abs(found[1].auroc - found[0].auroc) > TIE:
            mark = "B" if found[1].auroc > found[0].auroc else "A"
        rows.append(Row(name.replace("_", " "), texts[0], texts[1], mark))
    return rows


def _paired_skill(first: Facts, second: Facts) -> Figure:
    by_name = [{one.field: one.gain for one in f.skill} for f in (first, second)]
    if _same_test(first, second):
        # Both bound the same −log p(field) from above: the smaller one is nearer to it, and fair to both.
        alone = [{one.field: one.alone for one in f.skill} for f in (first, second)]
        by_name = [
            {one.field: min(bound.get(one.field, one.alone) for bound in alone) - one.given_others for one in f.skill}
            for f in (first, second)
        ]
    names = [*by_name[0], *(name for name in by_name[1] if name not in by_name[0])]
    names.sort(key=lambda name: -max(gains.get(name, 0.0) for gains in by_name))
    rows = []
    for name in names[: _MOST_BARS // 2]:
        for letter, gains, style in zip("AB", by_name, ("normal", "second"), strict=True):
            gain = gains.get(name)
            text = "not a field" if gain is None else f"{_signed(gain)} nats"
            rows.append(Bar(f"{letter} · {cut(name, 40)}", [(max(gain or 0.0, 0.0), style)], text))
    most = max((gain for gains in by_name for gain in gains.values()), default=0.1)
    return Figure(
        "What the other fields tell of each field",
        bars("Skill per field, side by side", rows, max(most, 0.1)),
        [("area first", "A"), ("area second", "B")],
        "Nats by which the other fields sharpen the model's guess at this one.",
    )


# --- words and numbers ---------------------------------------------------------------------------------


def _render(template: str, **context: Any) -> bytes:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "number": _number,
        "in_words": KINDS.__getitem__,
        "who": who,
        "cut": cut,
    }
    return environment.get_template(template).render(**context).encode("utf-8", "replace")


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,.4g}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _shown(value: Any) -> str:
    """A record's value as a person writes it."""
    if value is None:
        return "missing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    return cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 80)


def who(record: Suspect) -> str:
    """A record's name: its id, if the table has one."""
    if isinstance(record.id, dict):
        return ", ".join(f"{name} {_shown(value)}" for name, value in record.id.items())
    return "" if record.id is None else _shown(record.id)
