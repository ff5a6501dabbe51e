"""The pictures of docs/promise.md, from scores whose distribution is known, through the product's own calibration.

`python -m benchmarks.promise_pictures [FOLDER]`
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import beta

from nelbo.calibration import Calibration, n_flagged_allowed
from nelbo.decision import n_flagged_with

DOCS = Path(__file__).parents[1] / "docs"
_OURS, _ODD, _GREY = "#0b5fa5", "#d1711b", "#777777"

Values = NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws all of them."""
    folder = Path((arguments if arguments is not None else sys.argv[1:] or [str(DOCS)])[0])
    rng = np.random.default_rng(0)
    for name, draw in {
        "p-values": _p_values,
        "one-set": _one_set,
        "breaks": _breaks,
        "bursts": _bursts,
    }.items():
        figure = draw(rng)
        figure.savefig(folder / f"promise-{name}.png")
    return 0


def _figure(n: int, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(5 * n, height), dpi=100, layout="constrained")
    panels = list(np.atleast_1d(figure.subplots(1, n)))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _p_values(rng: np.random.Generator) -> Figure:
    """What p-values look like: of normal records, and of records that are odd by two standard deviations."""
    calibration = Calibration(rng.normal(size=1_999))
    figure, panels = _figure(2)
    for axes, scores, colour, title in (
        (panels[0], rng.normal(size=20_000), _OURS, "20,000 normal records"),
        (panels[1], rng.normal(2.0, 1.0, 20_000), _ODD, "20,000 odd records"),
    ):
        p_values = calibration.p_values(scores)
        axes.hist(
            p_values,
            bins=np.linspace(0, 1, 21).tolist(),
            color=colour,
            weights=np.full(p_values.size, 1 / p_values.size),
        )
        axes.axhline(0.05, color=_GREY, linewidth=1, linestyle=":")
        share = float((p_values <= 0.05).mean())
        axes.set_title(f"{title}: {share:.1%} have p ≤ 0.05")
        axes.set_xlabel("p-value")
        axes.set_ylabel("share of records")
    return figure


def _one_set(rng: np.random.Generator) -> Figure:
    """Where the true rate lies: each calibration set is one draw."""
    figure, panels = _figure(2)
    x = np.linspace(1e-4, 0.03, 600)
    for n, colour in ((199, "#a9c9e6"), (999, "#4b8ec8"), (9_999, "#08406f")):
        k = n_flagged_allowed(0.01, n)
        panels[0].plot(100 * x, beta.pdf(x, k, n + 1 - k), color=colour, label=f"{n:,} calibration records")
    panels[0].axvline(1, color=_GREY, linewidth=1, linestyle=":")
    panels[0].set_title("wish: 1 %, in the mean over calibration sets")
    panels[0].set_xlabel("true false-alarm rate, %")
    panels[0].set_yticks([])
    panels[0].legend(frameon=False)
    _hundred_sets(panels[1], rng)
    return figure


def _hundred_sets(axes: Axes, rng: np.random.Generator) -> None:
    n, rate = 999, 0.01
    scores = np.sort(rng.random((100, n)), axis=1)
    for confidence, offset, colour, label in (
        (None, 0.0, _OURS, "1 % in the mean"),
        (0.9, 120.0, _ODD, "1 % with confidence 0.9"),
    ):
        k = n_flagged_allowed(rate, n) if confidence is None else n_flagged_with(rate, n, confidence)
        true = 100 * np.sort(1 - scores[:, n - k])
        above = int((true > 1).sum())
        axes.scatter(offset + np.arange(100), true, s=9, color=colour, label=f"{label}: {above} of 100 above")
    axes.axhline(1, color=_GREY, linewidth=1, linestyle=":")
    axes.set_title("100 calibration sets of 999 records")
    axes.set_ylabel("true false-alarm rate, %")
    axes.set_xticks([])
    axes.set_ylim(0, 2.3)
    axes.legend(frameon=False, loc="upper left")


def _breaks(rng: np.random.Generator) -> Figure:
    """Drift, and feedback: what becomes of 1 % without anything being wrong with the calibration."""
    figure, panels = _figure(2)
    _drifting(panels[0], rng)
    _fed_back(panels[1], rng)
    return figure


def _drifting(axes: Axes, rng: np.random.Generator) -> None:
    calibration = Calibration(rng.normal(size=4_999))
    days, per_day = np.arange(60), 5_000
    moved = np.clip((days - 20) / 40, 0, 1)
    flagged = [
        100 * float((calibration.p_values(rng.normal(by, 1.0, per_day)) <= 0.01).mean()) for by in moved.tolist()
    ]
    axes.plot(days, flagged, color=_ODD, label="flagged, without any anomaly")
    axes.axhline(1, color=_GREY, linewidth=1, linestyle=":")
    axes.axvspan(20, 59, color="#eeeeee", zorder=0, label="normal records move, by 1 sd in the end")
    axes.set_title("drift")
    axes.set_xlabel("day")
    axes.set_ylabel("flagged, %")
    axes.set_ylim(0, None)
    axes.legend(frameon=False)


def _fed_back(axes: Axes, rng: np.random.Generator) -> None:
    """Each month the calibration records are last month's, without those that were flagged."""
    months, n = 13, 9_999
    careless, careful = [], []
    for _ in range(20):
        scores = rng.exponential(size=n)
        of_run = []
        for _ in range(months):
            threshold = Calibration(scores).threshold(n_flagged_allowed(0.01, scores.size))
            of_run.append(100 * float(np.exp(-threshold)))
            fresh = rng.exponential(size=n)
            scores = fresh[fresh <= threshold]
        careless.append(of_run)
        careful.append(
            [100 * float(np.exp(-Calibration(rng.exponential(size=n)).threshold(100))) for _ in range(months)]
        )
    axes.plot(np.mean(careless, axis=0), color=_ODD, label="on what was not flagged")
    axes.plot(np.mean(careful, axis=0), color=_OURS, label="on all normal records")
    axes.axhline(1, color=_GREY, linewidth=1, linestyle=":")
    axes.set_title("feedback: calibrated anew each month")
    axes.set_xlabel("month")
    axes.set_ylabel("true false-alarm rate, %")
    axes.set_ylim(0, None)
    axes.legend(frameon=False)


def _bursts(rng: np.random.Generator) -> Figure:
    """Dependence: the rate holds in the mean, but alarms come together."""
    figure, panels = _figure(2)
    n, days, correlation = 1_000, 400, 0.97
    independent = rng.normal(size=(days, n))
    dependent = _follow_each_other(rng, days * n, correlation).reshape(days, n)
    top = 2.3263  # beyond it lies 1 % of a standard normal
    panels[0].plot(np.cumsum(dependent[0] > top), color=_ODD, label="records that follow from the last one")
    for day in range(1, 12):
        panels[0].plot(np.cumsum(dependent[day] > top), color=_ODD, alpha=0.35)
        panels[0].plot(np.cumsum(independent[day] > top), color=_OURS, alpha=0.5)
    panels[0].plot([], color=_OURS, label="independent records")
    panels[0].set_title("12 days, 1,000 records each")
    panels[0].set_xlabel("record of the day")
    panels[0].set_ylabel("false alarms so far")
    panels[0].legend(frameon=False, loc="upper right", bbox_to_anchor=(1, 0.85))
    counts = {"independent": (independent > top).sum(axis=1), "dependent": (dependent > top).sum(axis=1)}
    bins = list(range(0, 62, 2))
    panels[1].hist(counts["dependent"], bins=bins, color=_ODD, alpha=0.7, label=_spread(counts["dependent"]))
    panels[1].hist(counts["independent"], bins=bins, color=_OURS, alpha=0.7, label=_spread(counts["independent"]))
    panels[1].set_title("400 days, 10 false alarms expected in each")
    panels[1].set_xlabel("false alarms of a day")
    panels[1].set_ylabel("days")
    panels[1].legend(frameon=False)
    return figure


def _follow_each_other(rng: np.random.Generator, n: int, correlation: float) -> Values:
    """A standard normal sequence, each value correlated with the last one."""
    noise = rng.normal(size=n) * (1 - correlation**2) ** 0.5
    noise[0] = rng.normal()
    found = np.empty(n)
    last = 0.0
    for i, step in enumerate(noise.tolist()):
        last = step if i == 0 else correlation * last + step
        found[i] = last
    return found


def _spread(counts: NDArray[np.int64]) -> str:
    low, high = np.quantile(counts, [0.05, 0.95])
    return f"mean {counts.mean():.1f}, nine days of ten {low:.0f} to {high:.0f}"


if __name__ == "__main__":
    sys.exit(main())
