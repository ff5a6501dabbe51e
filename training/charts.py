"""Charts as inline SVG: styled by the page's own classes, no script, nothing fetched.

Every chart is drawn 440 units wide, so that its letters stay readable on a phone and charts stand side by
side on a wide screen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 22, 26, 44

Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """From values to places on the page.

    Attributes:
        low, high: ends, in values; above 0 if `log`.
        start, stop: ends, in units of the page.
        label: what is measured, with its unit.
        log: of ten.
        percent: ticks read as shares.
    """

    low: float
    high: float
    start: float
    stop: float
    label: str
    log: bool = False
    percent: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; one beyond an end lies at that end."""
        value = min(max(value, self.low), self.high)
        low, high = (log10(self.low), log10(self.high)) if self.log else (self.low, self.high)
        share = ((log10(value) if self.log else value) - low) / (high - low or 1.0)
        return round(self.start + share * (self.stop - self.start), 1)

    def ticks(self) -> list[float]:
        """Four to six round values."""
        if self.log:
            powers = range(ceil(log10(self.low) - 1e-9), floor(log10(self.high) + 1e-9) + 1)
            return [10.0**power for power in powers]
        step = _round_step((self.high - self.low) / 5)
        first = ceil(self.low / step - 1e-9)
        return [step * i for i in range(first, floor(self.high / step + 1e-9) + 1)]

    def text(self, value: float) -> str:
        """A tick's label."""
        if self.percent:
            return f"{100 * value:.6g}%"
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:.0e}"


def _round_step(step: float) -> float:
    power = 10.0 ** floor(log10(step)) if step > 0 else 1.0
    return next((power * m for m in (1, 2, 2.5, 5, 10) if power * m >= step), power)


class Plot:
    """One chart; marks are added, then it is written.

    Args:
        title: what it shows, read out by a screen reader.
        x: low, high, label.
        y: low, high, label.
        log: both axes, of ten.
        x_percent, y_percent: ticks read as shares.
    """

    def __init__(
        self,
        title: str,
        x: tuple[float, float, str],
        y: tuple[float, float, str],
        *,
        log: bool = False,
        x_percent: bool = False,
        y_percent: bool = False,
    ) -> None:
        self.title = title
        self.x = Axis(x[0], x[1], _LEFT, WIDTH - _RIGHT, x[2], log, x_percent)
        self.y = Axis(y[0], y[1], HEIGHT - _BOTTOM, _TOP, y[2], log, y_percent)
        self._marks: list[Markup] = []

    def line(self, points: Sequence[Point], style: str) -> None:
        """A line through points."""
        self._marks.append(Markup('<path class="line {}" d="{}"/>').format(style, self._path(points)))

    def area(self, points: Sequence[Point], style: str) -> None:
        """A closed surface."""
        self._marks.append(Markup('<path class="area {}" d="{}Z"/>').format(style, self._path(points)))

    def dots(self, points: Sequence[Point], style: str) -> None:
        """Dots; one path for all of them keeps a page of hundreds small."""
        if points:
            d = "".join(f"M{self.x(x):g} {self.y(y):g}h0" for x, y in points)
            self._marks.append(Markup('<path class="dots {}" d="{}"/>').format(style, d))

    def crosses(self, points: Sequence[Point], style: str) -> None:
        """Small crosses."""
        if points:
            d = "".join(f"M{self.x(x) - 3:g} {self.y(y) - 3:g}l6 6m0-6l-6 6" for x, y in points)
            self._marks.append(Markup('<path class="line {}" d="{}"/>').format(style, d))

    def upright(self, value: float, label: str) -> None:
        """A dashed line at one x, its label on the side with more room."""
        x = self.x(value)
        is_right = x > (_LEFT + WIDTH - _RIGHT) * 0.6
        self._marks.append(
            Markup(
                '<path class="threshold" d="M{0:g} {1}V{2}"/><text class="note" x="{3:g}" y="{4}"{5}>{6}</text>'
            ).format(
                x,
                _TOP,
                HEIGHT - _BOTTOM,
                x + (-5 if is_right else 5),
                _TOP + 11,
                Markup(' text-anchor="end"') if is_right else "",
                label,
            )
        )

    def svg(self) -> Markup:
        """The chart."""
        parts = [*self._grid(), *self._marks, *self._labels()]
        return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
            WIDTH, HEIGHT, self.title, Markup("").join(parts)
        )

    def _path(self, points: Sequence[Point]) -> str:
        places = [f"{self.x(x):g} {self.y(y):g}" for x, y in points]
        return "M" + "L".join(places)

    def _grid(self) -> Iterator[Markup]:
        for tick in self.y.ticks():
            y = self.y(tick)
            yield Markup('<path class="grid" d="M{} {:g}H{}"/>').format(_LEFT, y, WIDTH - _RIGHT)
            yield Markup('<text x="{}" y="{:g}" text-anchor="end">{}</text>').format(
                _LEFT - 6, y + 4, self.y.text(tick)
            )
        for tick in self.x.ticks():
            x = self.x(tick)
            yield Markup('<text x="{:g}" y="{}" text-anchor="middle">{}</text>').format(
                x, HEIGHT - _BOTTOM + 16, self.x.text(tick)
            )
        yield Markup('<path class="axis" d="M{} {}H{}"/>').format(_LEFT, HEIGHT - _BOTTOM, WIDTH - _RIGHT)

    def _labels(self) -> Iterator[Markup]:
        yield Markup('<text class="label" x="{}" y="{}" text-anchor="end">{}</text>').format(
            WIDTH - _RIGHT, HEIGHT - 8, self.x.label
        )
        yield Markup('<text class="label" x="4" y="13">{}</text>').format(self.y.label)


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart.

    Attributes:
        label: of the row.
        parts: length and style of each piece, from the left.
        text: written beyond the last piece.
    """

    label: str
    parts: Sequence[tuple[float, str]]
    text: str


def bars(title: str, rows: Sequence[Bar], most: float) -> Markup:
    """Horizontal bars, a label above each.

    Args:
        title: what they show.
        rows: from the top.
        most: length that fills the width.
    """
    row_height, room = 34, 96  # beyond the bar, for its text
    scale = (WIDTH - room) / (most or 1.0)
    marks = []
    for i, row in enumerate(rows):
        top, x = i * row_height, 0.0
        marks.append(Markup('<text x="0" y="{}">{}</text>').format(top + 12, cut(row.label, 44)))
        for length, style in row.parts:
            width = max(length * scale, 0.0)
            marks.append(
                Markup('<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="10"/>').format(
                    style, x, top + 17, width
                )
            )
            x += width
        marks.append(Markup('<text class="value" x="{:.1f}" y="{}">{}</text>').format(x + 6, top + 26, row.text))
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, row_height * max(1, len(rows)), escape(title), Markup("").join(marks)
    )


def cut(text: object, most: int = 60) -> str:
    """A text on one line, cut where it is longer than a place for it."""
    line = " ".join(str(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def steps(low: float, high: float, heights: Sequence[float]) -> list[Point]:
    """The outline of a histogram of equally wide bins."""
    width = (high - low) / len(heights)
    points = [(low, 0.0)]
    for i, height in enumerate(heights):
        points += [(low + i * width, height), (low + (i + 1) * width, height)]
    return [*points, (high, 0.0)]
