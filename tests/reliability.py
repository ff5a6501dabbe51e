"""The tests that docs/reliability.md names; `python -m tests.reliability` runs them, and nothing else."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
_TEST = re.compile(r"\[`([\w/]+\.py::\w+)`\]\(\.\./([\w/.]+)\)")


def faults(page: str) -> dict[str, list[str]]:
    """The tests of each fault of the page's tables, as pytest names them."""
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| ") and "](../" in line]
    return {row[0].removeprefix("| "): [name for name, _ in _TEST.findall(row[-1])] for row in rows}


def targets(page: str) -> dict[str, str]:
    """Where each test's link leads."""
    return dict(_TEST.findall(page))


def main(arguments: Sequence[str]) -> int:
    """Runs the tests; pytest's exit code.

    Args:
        arguments: more for pytest.
    """
    named = faults(PAGE.read_text(encoding="utf-8"))
    return int(pytest.main([*dict.fromkeys(test for tests in named.values() for test in tests), *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
