"""`report.json`: every number that the report of a fit shows, so that it can be checked, compared and drawn anew.

Curves are binned and numbers cut to a few digits: the file stays small enough to travel in every bundle.
Where a record's values stand here, they stand in the reasons of `suspects` alone.
"""

from typing import Any, Literal

import msgspec

from nelbo.calibration import StatisticName
from nelbo.errors import BundleError

Level = Literal["good", "look", "stop"]
Point = tuple[float, float]

# Curves are read off at these places, so that only the other coordinate is kept: closer where it matters.
FALSE_ALARMS = tuple(round((i / 50) ** 2, 6) for i in range(51))
RECALLS = tuple(round(i / 50, 6) for i in range(1, 51))


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One sentence on whether to deploy.

    Attributes:
        level: "stop" speaks against it, "look" wants a person's judgement.
        topic: two or three words.
        text: the sentence.
    """

    level: Level
    topic: str
    text: str


class ColumnFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One column of the table.

    Attributes:
        missing: share of the records fitted on, of a field.
        n_categories: with a code of their own, of a coded field.
    """

    name: str
    role: str
    kind: str | None
    note: str | None
    missing: float | None
    n_categories: int | None


class DataFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table.

    Attributes:
        n_anomalies: labelled ones.
        duplicates: share of the records fitted on that repeat another one in every field.
        by_time: the oldest records were fitted, the newest give the p-values.
    """

    source: str
    digest: str
    n_normal: int
    n_fit: int
    n_a: int
    n_b: int
    n_anomalies: int
    duplicates: float
    by_time: bool
    columns: list[ColumnFacts]
    warnings: list[str]


class FitFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fit.

    Attributes:
        losses: step and nats per record.
        kl: mean of each latent, nats.
        mutual_information: between records and latents, nats.
        parity: largest relative difference between torch and the exported graph.
        command: that fits it again, without the table's folder.
        config: what the TOML file of the command holds; None without one.
    """

    losses: list[Point]
    kl: list[float]
    n_active: int
    mutual_information: float
    parity: float
    seed: int
    libraries: dict[str, str]
    command: str
    config: str | None


class RateFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bundle's own false-alarm rate.

    Attributes:
        low, high: where the true rate lies with 90 %.
        thresholds: of each statistic, higher = more anomalous; None where nothing is ever flagged.
    """

    rate: float
    effective: float
    low: float
    high: float
    n_calibration: int
    smallest: float
    thresholds: dict[StatisticName, float | None]


class Histogram(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One statistic of held-out normal records and of anomalies, higher = more anomalous.

    Attributes:
        low, high: ends of the bins, which are equally wide.
        normal, anomalies: records per bin; the last number counts those beyond `high`.
        flagged: share of the anomalies beyond the threshold.
    """

    low: float
    high: float
    normal: list[int]
    anomalies: list[int]
    flagged: float


class DetectorFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one detector tells the anomalies from calibration-b.

    Attributes:
        is_own: a statistic of this bundle, through the exported graph.
        roc: share of anomalies found at each of `FALSE_ALARMS`; empty for a statistic that does not decide.
        pr: precision at each of `RECALLS`.
        by_kind: AUROC of each kind of injected anomaly.
    """

    name: str
    is_own: bool
    auroc: float
    average_precision: float
    roc: list[float]
    pr: list[float]
    by_kind: dict[str, float]


class ComparisonFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bundle beside usual detectors.

    Attributes:
        source: "labelled" records of the table, or normal ones with an "injected" wrong cell.
        n_normal: of calibration-b, all of them.
        n_anomalies: at most 10,000 of them, drawn at random.
        n_fit: records that the baselines were fitted on, at most 10,000.
        kinds: injected anomalies of each kind.
        sentence: which is best.
    """

    source: Literal["labelled", "injected"]
    n_normal: int
    n_anomalies: int
    n_fit: int
    kinds: dict[str, int]
    detectors: list[DetectorFacts]
    sentence: str

    @property
    def own(self) -> DetectorFacts:
        """The statistic that decides."""
        return next(detector for detector in self.detectors if detector.name == "score")


class CheckFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Calibration-b judged by itself: one half gives p-values, the other half is flagged by them.

    Attributes:
        n_calibrating, n_checked: records of the halves.
        nominal: effective rates.
        realised: share of the checked half flagged at each.
        low, high: where that share lies with 90 % if the halves are alike (beta-binomial).
        at: position of the rate nearest to the bundle's own.
        p_value: how often alike halves would differ at least so much at that rate, to both sides.
    """

    n_calibrating: int
    n_checked: int
    nominal: list[float]
    realised: list[float]
    low: list[float]
    high: list[float]
    at: int
    p_value: float


class SkillFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the other fields tell of one, nats per record, over `n` records of calibration-b.

    Of a wide table, the 100 fields are measured whose contributions vary most.

    Attributes:
        alone: −log p(field), an upper bound: the −ELBO of the field with all others hidden, or the frequency of
            its categories where that is smaller.
        given_others: −log p(field | others), estimated by the −ELBO with it less the −ELBO without it.
    """

    field: str
    n: int
    alone: float
    given_others: float

    @property
    def gain(self) -> float:
        """Nats that the others tell."""
        return self.alone - self.given_others


class MapFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Latent means in two dimensions.

    Attributes:
        x_label, y_label: what the axes are.
        normal, anomalies: x, y and p-value of each drawn record.
    """

    x_label: str
    y_label: str
    normal: list[tuple[float, float, float]]
    anomalies: list[tuple[float, float, float]]


class Suspect(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A training record that a person should look at.

    Attributes:
        record: position in the table, from 0; what `--exclude` names it by.
        id: as the table has it.
        score: the bundle's, without the record's own part in the model; the list has another order.
        p_value: of that score.
        reason: one sentence on that score, with values of the record.
    """

    record: int
    id: Any
    score: float
    p_value: float
    reason: str


class SuspectFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Training records to look at.

    Attributes:
        n_judged: normal records, those of the calibration sets included.
        listed: those that an Isolation Forest finds oddest, the oddest first.
    """

    n_judged: int
    listed: list[Suspect]


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of them."""

    format: Literal[2] = 2
    model: str
    version: str
    created: str
    findings: list[Finding]
    data: DataFacts
    fit: FitFacts
    rate: RateFacts
    comparison: ComparisonFacts | None
    histograms: dict[StatisticName, Histogram]
    check: CheckFacts | None
    skill: list[SkillFacts]
    map: MapFacts | None
    suspects: SuspectFacts

    @property
    def label(self) -> str:
        """`name@version`."""
        return f"{self.model}@{self.version}"

    @property
    def headline(self) -> str:
        """Whether to deploy, in one sentence."""
        n = sum(finding.level == "look" for finding in self.findings)
        return {
            "good": "Fit to deploy: nothing here speaks against it.",
            "look": f"Fit to deploy, once a person has looked at {n} point{'s' * (n != 1)}.",
            "stop": "Not fit to deploy as it is.",
        }[self.level]

    @property
    def level(self) -> Level:
        """The gravest of the findings."""
        levels = [finding.level for finding in self.findings]
        return "stop" if "stop" in levels else "look" if "look" in levels else "good"


def encode(facts: Facts) -> bytes:
    """The file's bytes."""
    return msgspec.json.encode(facts) + b"\n"


def parse(text: bytes, source: str) -> Facts:
    """Facts from the bytes of their file.

    Raises:
        BundleError: naming the source.
    """
    try:
        return msgspec.json.decode(text, type=Facts)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{source}: report.json: {error}; another version of nelbo may have written it") from error
