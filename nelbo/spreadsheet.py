"""Texts that a spreadsheet would take for formulas, made plain texts: whoever opens a CSV file runs nothing by it.

A cell gets an apostrophe before it where it begins with one of = + - @, a tab, a line's end or their full-width forms,
and is no number; and also where it begins with apostrophes before such a letter. So whoever takes one apostrophe away
wherever some stand before such a letter has what was written.
"""

import re

import pyarrow as pa
import pyarrow.compute as pc

_FORMULA = "^('*[=+\\-@\t\r\n＝＋－＠])"
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"


def plain(table: pa.Table) -> pa.Table:
    """A table whose texts, and names of columns, no spreadsheet takes for formulas; numbers stay as they are.

    >>> plain(pa.table({"=a": ["=1+1", "-5", "-5+x", "open", None]})).to_pydict()
    {"'=a": ["'=1+1", '-5', "'-5+x", 'open', None]}
    """
    columns = [_plain(column) if pa.types.is_string(column.type) else column for column in table.columns]
    return pa.Table.from_arrays(columns, [plain_text(name) for name in table.column_names])


def plain_text(text: str) -> str:
    """One such text."""
    return text if re.fullmatch(_NUMBER, text) else re.sub(_FORMULA, r"'\1", text)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    looks = pc.match_substring_regex(column, _FORMULA)
    if not pc.any(looks).as_py():
        return column
    is_formula = pc.and_(looks, pc.invert(pc.match_substring_regex(column, _NUMBER)))
    return pc.if_else(is_formula, pc.replace_substring_regex(column, _FORMULA, r"'\1"), column)
