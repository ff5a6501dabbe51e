"""The results as a page, and the bars alone for the docs."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from benchmarks.report import markdown_table
from benchmarks.serving.bars import Bar

_BEGIN, _END = "<!-- bars, written by make bench-serving -->", "<!-- end of bars -->"


def bars_table(bars: Mapping[str, Iterable[Bar]]) -> str:
    """What was asked and what was found, by the title of the part that found it."""
    rows = [
        (title, bar.what, bar.wish, "" if bar.found is None else f"{bar.found:.2f}", bar.verdict, bar.note)
        for title, of_part in bars.items()
        for bar in of_part
    ]
    return markdown_table(["part", "figure", "asked", "found", "verdict", "note"], rows)


def put_into(page: Path, table: str) -> None:
    """Replaces what stands between the two marks of a page.

    Raises:
        ValueError: the page lacks one of them.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page}: expected the lines {_BEGIN} and {_END}, did not find both")
    page.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")
