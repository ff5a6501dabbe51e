"""Whether a fit should be deployed, in sentences."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from training.facts import CheckFacts, ComparisonFacts, DataFacts, DetectorFacts, Finding, RateFacts

if TYPE_CHECKING:
    from training.evaluate import LatentUse  # torch takes seconds; who draws a report again needs none

_WIDE = 4.0  # the true rate may be as many times the smallest that is believed; chosen
TIE = 0.005  # AUROC or average precision: less is no difference to act on; chosen
_CHANCE = 0.6  # AUROC at which a model hardly tells anything; chosen
_DUPLICATES = 0.01  # as the warning of the quality gate
_UNLIKELY = 0.001  # a check that alike halves fail once in a thousand fits; chosen


def findings(
    data: DataFacts,
    rate: RateFacts,
    check: CheckFacts | None,
    comparison: ComparisonFacts | None,
    latents: "LatentUse",
) -> list[Finding]:
    """What speaks for and against deploying, the gravest first."""
    found = [
        *_on_rate(rate),
        *_on_check(check),
        *_on_detection(comparison),
        *_on_latents(latents),
        *_on_data(data),
    ]
    return sorted(found, key=lambda finding: ("stop", "look", "good").index(finding.level))


def comparison_sentence(detectors: Sequence[DetectorFacts], source: str) -> str:
    """Which detector is best, and plainly where it is not this model."""
    own = next(detector for detector in detectors if detector.name == "score")
    others = [detector for detector in detectors if not detector.is_own]
    best = max(others, key=lambda other: other.auroc)
    sharpest = max(others, key=lambda other: other.average_precision)
    loses_auroc = best.auroc > own.auroc + TIE
    loses_precision = sharpest.average_precision > own.average_precision + TIE
    on = "the labelled anomalies" if source == "labelled" else "injected wrong cells"
    pair = f"AUROC {own.auroc:.3f} against {best.auroc:.3f}"
    precision = f"average precision {own.average_precision:.3f} against {sharpest.average_precision:.3f}"
    if loses_auroc and loses_precision:
        both = best.name if best is sharpest else f"{best.name} and {sharpest.name}"
        return f"{both} does better than this model on {on}: {pair}, {precision}"
    if loses_auroc or loses_precision:
        name, lost, won = (best.name, pair, precision) if loses_auroc else (sharpest.name, precision, pair)
        return f"{name} does better than this model on {on} by one measure: {lost}; by the other not: {won}"
    ahead = own.auroc > best.auroc + TIE and own.average_precision > sharpest.average_precision + TIE
    verb = "does better than" if ahead else "is at least level with"
    return f"This model {verb} {_listed([other.name for other in others])} on {on}: {pair} ({best.name}), {precision}"


def percent(share: float) -> str:
    """Three digits that say something.

    >>> percent(0.00931), percent(0.5)
    ('0.931%', '50%')
    """
    return f"{100 * share:.3g}%"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _on_rate(rate: RateFacts) -> Iterator[Finding]:
    text = (
        f"{rate.n_calibration:,} calibration records give an effective false-alarm rate of {percent(rate.effective)}; "
        f"the true one lies within {percent(rate.low)} and {percent(rate.high)} with 90 %"
    )
    k = round(rate.effective * (rate.n_calibration + 1))
    if rate.rate > 0.01 + 1e-9 and rate.rate == rate.smallest:
        yield Finding("look", "few records", f"{text}. They do not carry the usual 1 %: more normal records would.")
    elif rate.low * _WIDE < rate.high:
        # Four times the calibration records halve the band.
        more = f"{4 * rate.n_calibration:,} would halve that band"
        wide = f"The threshold rests on the {k} oddest of them; {more}."
        yield Finding("look", "wide band", f"{text}. {wide}")
    else:
        yield Finding("good", "false alarms", f"{text}.")


def _on_check(check: CheckFacts | None) -> Iterator[Finding]:
    if check is None:
        yield Finding("look", "not checked", "There are too few calibration records to check one half by the other.")
        return
    at = check.at
    text = (
        f"Asked for {percent(check.nominal[at])}, one half of the calibration records flags "
        f"{percent(check.realised[at])} of the other; {percent(check.low[at])} to {percent(check.high[at])} would be "
        "usual"
    )
    if check.p_value < _UNLIKELY:
        yield Finding("stop", "rate not kept", f"{text}. The records are not alike: look for a drift in time.")
    else:
        yield Finding("good", "rate kept", f"{text}.")


def _on_detection(comparison: ComparisonFacts | None) -> Iterator[Finding]:
    if comparison is None:
        yield Finding("look", "not compared", "There is no labelled anomaly, and no field to inject one into.")
        return
    own = comparison.own
    others = [detector for detector in comparison.detectors if not detector.is_own]
    loses = any(
        other.auroc > own.auroc + TIE or other.average_precision > own.average_precision + TIE for other in others
    )
    text = f"{comparison.sentence}."
    if comparison.source == "labelled" and own.auroc < _CHANCE:
        yield Finding("stop", "detects little", f"AUROC {own.auroc:.3f} is hardly better than chance. {text}")
    else:
        yield Finding("look" if loses else "good", "beside others", text)
    if comparison.source == "injected":
        told = (
            "Without labels, nothing here says how real anomalies are found: the injected ones are single wrong cells."
        )
        yield Finding("look", "no labels", told)


def _on_latents(latents: "LatentUse") -> Iterator[Finding]:
    if latents.n_active == 0:
        yield Finding(
            "look", "collapsed", "No latent is in use: every field is judged alone, and wrong combinations pass."
        )
    else:
        yield Finding("good", "latents", f"{latents.verdict[0].upper()}{latents.verdict[1:]}; no collapse.")


def _on_data(data: DataFacts) -> Iterator[Finding]:
    if data.duplicates >= _DUPLICATES:
        yield Finding(
            "look",
            "duplicates",
            f"{data.duplicates:.0%} of the records fitted on repeat another one: p-values are cautious where "
            "calibration records tie, and a record seen often looks normal for that.",
        )
    dropped = [column for column in data.columns if column.note is not None and column.role != "field"]
    if dropped:
        names = ", ".join(f"'{column.name}' ({column.note})" for column in dropped[:5])
        more = f" and {len(dropped) - 5} more" if len(dropped) > 5 else ""
        yield Finding("look", "dropped columns", f"Not scored, since it seemed useless: {names}{more}. Is that right?")
