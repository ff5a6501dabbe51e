"""Results as files: JSON for programs, Markdown for people, both with the machine they come from."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.machine import machine

RESULTS = Path(__file__).parent / "results"


def write_report(
    name: str, title: str, command: str, found: Mapping[str, object], body: str, results: Path = RESULTS
) -> Path:
    """Writes `<name>.json` and `<name>.md`.

    Args:
        name: of both files.
        title: of the page.
        command: that makes the figures again.
        found: the figures.
        body: the page's text, Markdown.
        results: the folder.

    Returns:
        The page.
    """
    results.mkdir(exist_ok=True)
    measured = machine()
    text = json.dumps({"command": command, "machine": measured, **found}, indent=1)
    (results / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    page = results / f"{name}.md"
    page.write_text(f"# {title}\n{body}\n\n`{command}`\n\n{_sentence(measured)}\n", encoding="utf-8")
    return page


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown.

    >>> print(markdown_table(["a", "b"], [[1, "x"]]))
    | a | b |
    |---|---|
    | 1 | x |
    """
    lines = ["| " + " | ".join(map(str, line)) + " |" for line in (headings, *rows)]
    return "\n".join([lines[0], "|---" * len(headings) + "|", *lines[1:]])


def _sentence(measured: Mapping[str, object]) -> str:
    libraries = measured["libraries"]
    assert isinstance(libraries, dict)
    versions = ", ".join(f"{name} {version}" for name, version in libraries.items() if version)
    return (
        f"Measured on {measured['date']}, revision {measured['revision']}: {measured['processor']}, "
        f"{measured['cores']} cores, {measured['memory_gib']} GiB; Python {measured['python']}, {versions}."
    )
