"""Names of fields: repeated, alike, unknown, left out; and columns that do not fit together."""

import json
from typing import Any

from tests.corpus.case import GOOD, MODEL, SCORE, Case, post, records, refused, scored, wrong_record

_NEEDED = f"({MODEL} has 5 fields, of which 'rpm' may be left out), got none"
_UNKNOWN = f"expected one of the 7 columns of {MODEL}, got another name"


def _without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name not in names}


def _also(text: bytes) -> bytes:
    """A good record with further names before the others."""
    return b"{" + text + b"," + json.dumps(GOOD).encode()[1:]


# Each looks like `pressure` and is another name.
_ALIKE: dict[str, str] = {
    "in capitals": "PRESSURE",
    "with a capital": "Pressure",
    "with a blank behind": "pressure ",
    "with a blank before": " pressure",
    "with a tab": "pressure\t",
    "with a no-break space": "pressure\u00a0",
    "with a joiner of no width": "press\u200dure",
    "with a space of no width": "press\u200bure",
    "with a soft hyphen": "pres\u00adsure",
    "with a byte order mark": "\ufeffpressure",
    "with a zero byte": "pressure\x00",
    "in Cyrillic": "\u0440ressure",
    "in wide letters": "\uff50ressure",
    "in mathematical letters": "\U0001d429ressure",
    "with a long s": "pre\u017f\u017fure",
    "with an accent beside": "pre\u0301ssure",
    "with an accent within": "pr\u00e9ssure",
    "written from right to left": "\u202epressure",
    "as a path": "pressure/",
    "as a member": "pump.pressure",
    "as a list": "pressure[]",
    "empty": "",
    "of a prototype": "__proto__",
    "of a class": "__class__",
    "of a struct": "c0",
    "of an alias": "\x7f0",
    "of 100,000 letters": "p" * 100_000,
}


def _alike(name: str) -> bytes:
    return json.dumps({**_without("pressure"), name: 5.0}, ensure_ascii=False).encode()


def _shown(name: str) -> str:
    return name if len(name) <= 60 else name[:60] + "…"


def _twice(name: str, text: bytes, field: str) -> Case:
    return wrong_record(name, _also(text), f", field '{field}': expected the name once, got it several times")


def _of_columns() -> list[Case]:
    good = {name: [value] for name, value in GOOD.items()}
    wrong = {
        "columns of different lengths": (
            {**good, "rpm": [1.0, 2.0]},
            "column 'rpm' has 2 values, column 'pressure' has 1: expected equally many",
        ),
        "a column without values beside others": (
            {**good, "heated": []},
            "column 'heated' has 0 values, column 'pressure' has 1: expected equally many",
        ),
        "a column that there is not": (
            {**good, "Pressure": [1.0]},
            f"column 'Pressure' is not among the columns of {MODEL}",
        ),
        "a column left out": (
            {name: values for name, values in good.items() if name != "valve"},
            f"expected a value for 'valve' {_NEEDED}",
        ),
        "no column": ({}, "expected columns with values, got none"),
    }
    cases = [
        refused(name, json.dumps({"columns": columns}).encode(), 422, "wrong-body", detail)
        for name, (columns, detail) in wrong.items()
    ]
    twice = json.dumps({"columns": good}).encode()[:-2] + b',"rpm":[1.0]}}'
    once_escaped = json.dumps({"columns": good}).encode()[:-2] + b',"r\\u0070m":[1.0]}}'
    several = "the name 'rpm' stands several times in one object; expected it once"
    cases += [
        refused("a column twice", twice, 422, "wrong-body", several),
        refused("a column twice, once escaped", once_escaped, 422, "wrong-body", several),
    ]
    values: dict[str, tuple[str, object, str]] = {
        "text in a column of numbers": ("pressure", "5", "a number, got '5'"),
        "true in a column of numbers": ("rpm", True, "a number, got true"),
        "a list in a column of numbers": ("rpm", [1], "a number, got [1]"),
        "a number in a column of categories": ("valve", 1, "a string, got 1"),
        "a number in a column of truth values": ("heated", 1, "true or false, got 1"),
    }
    for name, (field, value, expected) in values.items():
        body = json.dumps({"columns": {**{n: v * 2 for n, v in good.items()}, field: [GOOD[field], value]}}).encode()
        detail = f"record 1, field '{field}': expected {expected}"
        cases.append(Case(name, post(body, f"{SCORE}?strict=true"), 422, "wrong-records", detail))
    return cases


def cases() -> list[Case]:
    """All of them."""
    return [
        *(
            wrong_record(f"a name {how}", _alike(name), f", field '{_shown(name)}': {_UNKNOWN}")
            for how, name in _ALIKE.items()
        ),
        *(
            wrong_record(
                f"no {name}",
                json.dumps(_without(name)).encode(),
                f", field '{name}': expected a value for '{name}' {_NEEDED}",
            )
            for name in GOOD
            if name != "rpm"
        ),
        wrong_record(
            "a record without anything", b"{}", f", field 'pressure': expected a value for 'pressure' {_NEEDED}"
        ),
        *(
            wrong_record(f"{name} as a record", raw, f": expected a JSON object, got {found}")
            for name, raw, found in [
                ("null", b"null", "null"),
                ("true", b"true", "true"),
                ("a number", b"5", "5"),
                ("text", b'"pump"', "'pump'"),
                ("a list", b"[5.0]", "[5.0]"),
                ("an empty list", b"[]", "[]"),
                ("a list of objects", b"[{}]", "[{}]"),
            ]
        ),
        _twice("a number twice", b'"pressure":1', "pressure"),
        _twice("the same number twice", b'"pressure":5.0', "pressure"),
        _twice("a category twice", b'"valve":"shut"', "valve"),
        _twice("a category twice, first null", b'"valve":null', "valve"),
        _twice("a number twice, once escaped", b'"press\\u0075re":1', "pressure"),
        _twice(
            "a number twice, escaped throughout",
            b'"\\u0070\\u0072\\u0065\\u0073\\u0073\\u0075\\u0072\\u0065":1',
            "pressure",
        ),
        _twice("a name with a slash twice, once escaped", b'"in\\/out [l\\/s]":1', "in/out [l/s]"),
        _twice("an id twice", b'"serial":"a","serial":"b"', "serial"),
        _twice("a name twice that is not scored", b'"failed":0,"failed":1', "failed"),
        _twice("a name ten thousand times", b",".join([b'"failed":0'] * 10_000), "failed"),
        _twice("a name twice behind a colon in a value", b'"serial":"a:b\\u003ac","rpm":1', "rpm"),
        wrong_record("a name twice, once in capitals", _also(b'"RPM":1'), f", field 'RPM': {_UNKNOWN}"),
        wrong_record(
            "a hundred names that there are not",
            _also(b",".join(b'"x%d":0' % i for i in range(100))),
            f", field 'x0': {_UNKNOWN}",
        ),
        scored("a name that is escaped", records(json.dumps(GOOD).encode().replace(b"rpm", b"\\u0072pm"))),
        scored("a value with names in it", records(_also(b'"serial":"\\"rpm\\":1, \\"rpm\\":2"'))),
        scored("a value that is not scored, with a name twice", records(_also(b'"failed":{"a":1,"a":2}'))),
        *_of_columns(),
    ]
