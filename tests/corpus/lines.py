"""JSON lines: each wrong line is an error of its own among good ones."""

import json

from tests.corpus.case import GOOD, LINES, SCORE, Case, post

_GOOD = json.dumps(GOOD).encode()
_NOT_JSON = ": expected a JSON object, got text that is not JSON ("
# A line, and what is said of it.
_WRONG: dict[str, tuple[bytes, str]] = {
    "words": (b"hello", _NOT_JSON),
    "half a record": (_GOOD[:30], _NOT_JSON),
    "a record and a comma": (_GOOD + b",", _NOT_JSON),
    "two records": (_GOOD + _GOOD, _NOT_JSON),
    "a list of a record": (b"[" + _GOOD + b"]", ": expected a JSON object, got [{'pressure': 5.0,"),
    "null": (b"null", ": expected a JSON object, got null"),
    "a number": (b"5", ": expected a JSON object, got 5"),
    "an opened list": (b"[", _NOT_JSON),
    "a body of records": (b'{"records":[]}', ", field 'records': expected one of the 7 columns"),
    "a line of an event stream": (b"data: " + _GOOD, _NOT_JSON),
    "a zero byte": (b"\x00", _NOT_JSON),
    "a record separator before a record": (b"\x1e" + _GOOD, _NOT_JSON),
    "a byte order mark": (b"\xef\xbb\xbf" + _GOOD, _NOT_JSON),
    "invalid UTF-8": (b'{"valve":"\xff"}', ""),
    "a surrogate": (_GOOD.replace(b"open", b"\\ud800"), _NOT_JSON),
    "NaN": (_GOOD.replace(b"1500.0", b"NaN"), _NOT_JSON),
    "a number beyond any float": (_GOOD.replace(b"1500.0", b"1e400"), ", field 'rpm': expected a number, got 1e400"),
    "a name twice": (_GOOD[:-1] + b',"rpm":1}', ", field 'rpm': expected the name once, got it several times"),
    "a name left out": (b'{"rpm":1}', ", field 'pressure': expected a value for 'pressure'"),
    "a line break within a string": (_GOOD.replace(b"open", b"op\\\nen"), _NOT_JSON),
    "a megabyte and a byte": (b" " * (1 << 20) + b"1", ": expected a line of at most 1048576 bytes, got a longer one"),
    "three megabytes": (b"[" * (3 << 20), ": expected a line of at most 1048576 bytes, got a longer one"),
}


def _case(name: str, body: bytes, detail: str) -> Case:
    return Case(f"a line of {name}", post(body, f"{SCORE}?explain=none", LINES), 200, None, detail)


def cases() -> list[Case]:
    """All of them."""
    return [
        *(
            _case(name, _GOOD + b"\n" + line + b"\n" + _GOOD + b"\n", f"record 1{detail}")
            for name, (line, detail) in _WRONG.items()
        ),
        _case("words and no end", _GOOD + b"\nhello", f"record 1{_NOT_JSON}"),
        _case("carriage returns alone", _GOOD + b"\r" + _GOOD, f"record 0{_NOT_JSON}"),
        _case("nothing", b"", ""),
        _case("blanks", b"\n \n\t\r\n\n", ""),
        _case("carriage returns and line feeds", _GOOD + b"\r\n" + _GOOD + b"\r\n", ""),
        _case("5,000 blank ones", b"\n" * 5_000 + _GOOD, ""),
        _case(
            "a JSON body over several lines", json.dumps({"records": [GOOD]}, indent=1).encode(), f"record 0{_NOT_JSON}"
        ),
    ]
