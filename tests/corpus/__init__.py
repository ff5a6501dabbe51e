"""Requests that a service has to stand, each with the answer that it must get."""

from dataclasses import replace

from tests.corpus import depth, encodings, http, keys, lines, paths, protocol, queries, syntax, tables, values
from tests.corpus.case import Case

_MODULES = (depth, encodings, http, keys, lines, paths, protocol, queries, syntax, tables, values)
_THEMES = {module.__name__.rpartition(".")[2]: module.cases for module in _MODULES}


def corpus() -> list[Case]:
    """All of them, in a fixed order, each under a name of its own."""
    return [replace(case, name=f"{theme}: {case.name}") for theme, cases in _THEMES.items() for case in cases()]
