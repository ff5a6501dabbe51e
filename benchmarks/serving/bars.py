"""What is asked of the service, held against what was found."""

from typing import Literal

import msgspec


class Bar(msgspec.Struct, frozen=True):
    """One figure that is asked for.

    Attributes:
        what: the figure, in words.
        found: its value; None where a part of it could not be measured.
        asked: the value that it is held against.
        at_most: `found` may not be larger; otherwise it may not be smaller.
        note: how to read it; why there is none.
    """

    what: str
    found: float | None
    asked: float
    at_most: bool
    note: str = ""

    @property
    def verdict(self) -> Literal["met", "short", "not measured"]:
        """Whether it is as asked."""
        if self.found is None:
            return "not measured"
        return "met" if (self.found <= self.asked if self.at_most else self.found >= self.asked) else "short"

    @property
    def wish(self) -> str:
        """What is asked, as tables show it."""
        return f"{'≤' if self.at_most else '≥'} {self.asked:g}"


def ratio(above: float | None, below: float | None) -> float | None:
    """Their ratio to four significant digits; None where one of them is missing or there is nothing to divide by.

    >>> ratio(3.0, 1.5), ratio(None, 1.0), ratio(1.0, 0.0)
    (2.0, None, None)
    """
    return None if above is None or not below or below < 0 else float(f"{above / below:.4g}")


def less(whole: float | None, part: float) -> float | None:
    """A difference; None where the whole is missing."""
    return None if whole is None else whole - part
