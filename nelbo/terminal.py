"""Texts for a terminal: names and values come from strangers' tables, and a terminal obeys some characters."""

import re

# Controls but tab and line feed; what turns the direction of writing; and lone surrogates, which no terminal takes.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""A text with such characters written out.

    >>> printable("field '\x1b[2Jpump': a value \u202egnp")
    "field '\\x1b[2Jpump': a value \\u202egnp"
    """
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def complaint(text: str) -> str:
    r"""An error as the commands print it: each line, for some texts list several problems, says whom it is of.

    >>> complaint("t.json: keys: …\nt.json: format: …")
    'nelbo: t.json: keys: …\nnelbo: t.json: format: …'
    """
    return "\n".join(f"nelbo: {line}" for line in printable(text).split("\n"))
