"""Queries of scoring requests."""

from tests.corpus.case import CSV, GOOD, INFER, LINES, SCORE, Case, post, records

_ONE = records(GOOD)
_NAMES = "rate, confidence, max_false_alarms, records_per_s, fdr, per, window, explain, strict"
_BUDGET = "max_false_alarms=5&per=day&records_per_s=10"


def _wrong(query: str, parameter: str, text: str, content_type: str = "application/json") -> Case:
    detail = f"query parameter '{parameter}': expected {text}"
    request = post(_ONE, f"{SCORE}?{query}", content_type)
    return Case(f"?{query[:60]} of {content_type}", request, 422, "wrong-query", detail)


def _no_number(name: str, text: str, shown: str) -> Case:
    return _wrong(f"{name}={text}", name, f"a number, got {shown}")


_NO_NUMBERS = {
    "": "''",
    "abc": "'abc'",
    "NaN": "'NaN'",
    "nan": "'nan'",
    "inf": "'inf'",
    "Infinity": "'Infinity'",
    "-0.1": "'-0.1'",
    "%2B0.1": "'+0.1'",
    "+0.1": "' 0.1'",
    "0,1": "'0,1'",
    "0.1%25": "'0.1%'",
    "1_0": "'1_0'",
    "0x1p-4": "'0x1p-4'",
    "1e": "'1e'",
    "%D9%A1": "'\u0661'",
    "%EF%BC%95": "'\uff15'",
    "0.1%00": "'0.1\\x00'",
    "%200.1": "' 0.1'",
    "0.1;rate=0.2": "'0.1;rate=0.2'",
    "[0.1]": "'[0.1]'",
    "true": "'true'",
    "null": "'null'",
    "1" * 5_000 + "x": "'" + "1" * 59 + "…",
}


def cases() -> list[Case]:
    """All of them."""
    one_of = f"one of {_NAMES}, got the name "
    rate, confidence, fdr = "a number, 0 ≤ rate < 1", "a number, 0.5 ≤ confidence < 1", "a number, 0 < fdr < 1"
    not_utf8 = "the query is not percent-encoded UTF-8"
    huge = "1" + "0" * 400
    return [
        *(_no_number("rate", text, shown) for text, shown in _NO_NUMBERS.items()),
        *(_no_number(name, "x", "'x'") for name in ("confidence", "max_false_alarms", "records_per_s", "fdr")),
        _wrong("rate=1", "rate", f"{rate}, got 1"),
        _wrong("rate=1.5", "rate", f"{rate}, got 1.5"),
        _wrong("rate=1e400", "rate", f"{rate}, got inf"),
        _wrong(f"rate={huge}", "rate", f"{rate}, got inf"),
        _wrong("confidence=0.4", "confidence", f"{confidence}, got 0.4"),
        _wrong("confidence=1", "confidence", f"{confidence}, got 1"),
        _wrong("fdr=0", "fdr", f"{fdr}, got 0"),
        _wrong("fdr=1", "fdr", f"{fdr}, got 1"),
        _wrong("fdr=0.1&rate=0.1", "fdr", "it without rate, confidence and max_false_alarms, got more than one"),
        _wrong("fdr=0.1&confidence=0.9", "fdr", "it without rate, confidence and max_false_alarms, got more than one"),
        _wrong(f"fdr=0.1&{_BUDGET}", "fdr", "it without rate, confidence and max_false_alarms, got more than one"),
        _wrong(f"rate=0.1&{_BUDGET}", "rate", "a rate or max_false_alarms, got both"),
        _wrong("max_false_alarms=5", "per", "it beside max_false_alarms, got none"),
        _wrong("per=day", "max_false_alarms", "it beside per, got none"),
        _wrong("records_per_s=5&per=day", "max_false_alarms", "it beside per and records_per_s, got none"),
        _wrong("max_false_alarms=5&per=month&records_per_s=1", "per", "one of hour, day, week, got month"),
        _wrong("max_false_alarms=5&per=&records_per_s=1", "per", "one of hour, day, week, got "),
        _wrong("max_false_alarms=5&per=DAY&records_per_s=1", "per", "one of hour, day, week, got DAY"),
        _wrong("max_false_alarms=5&per=day&records_per_s=0", "records_per_s", "a number above 0, got 0"),
        _wrong("max_false_alarms=5&per=day&records_per_s=1e400", "records_per_s", "a number above 0, got inf"),
        _wrong(
            "max_false_alarms=0&per=day&records_per_s=1",
            "max_false_alarms",
            "a number above 0 and below the 86400 records of a day, got 0",
        ),
        _wrong(
            "max_false_alarms=86400&per=day&records_per_s=1",
            "max_false_alarms",
            "a number above 0 and below the 86400 records of a day, got 86400",
        ),
        _wrong("explain=yes", "explain", "one of flagged, all, none, got 'yes'"),
        _wrong("explain=", "explain", "one of flagged, all, none, got ''"),
        _wrong("explain=ALL", "explain", "one of flagged, all, none, got 'ALL'"),
        _wrong("strict=1", "strict", "true or false, got '1'"),
        _wrong("strict=True", "strict", "true or false, got 'True'"),
        _wrong("strict", "strict", "true or false, got ''"),
        _wrong("window=5", "window", "it with JSON lines alone: any other body is one window, got 5"),
        _wrong("window=0", "window", "a whole number from 1 to 999999999, got '0'"),
        _wrong("window=1.5", "window", "a whole number from 1 to 999999999, got '1.5'"),
        _wrong("window=9999999999", "window", "a whole number from 1 to 999999999, got '9999999999'"),
        _wrong("rate=0.1&rate=0.1", "rate", "it once, got it several times"),
        _wrong("rate=0.1&rat%65=0.2", "rate", "it once, got it several times"),
        _wrong("explain=all&explain=none", "explain", "it once, got it several times"),
        _wrong("rates=0.1", "rates", f"{one_of}'rates'"),
        _wrong("Rate=0.1", "Rate", f"{one_of}'Rate'"),
        _wrong("rate%20=0.1", "rate ", f"{one_of}'rate '"),
        _wrong("rate[]=0.1", "rate[]", f"{one_of}'rate[]'"),
        _wrong("=1", "", f"{one_of}''"),
        _wrong("&&x", "x", f"{one_of}'x'"),
        _wrong("__class__=1", "__class__", f"{one_of}'__class__'"),
        _wrong("%F0%9F%98%80=1", "\U0001f600", f"{one_of}'\U0001f600'"),
        *(
            Case(f"?{query}", post(_ONE, f"{SCORE}?{query}"), 422, "wrong-query", not_utf8)
            for query in ("rate=%ff", "%ff=1", "%c0%ae=1", "rate=%ed%a0%80")
        ),
        Case(
            "a thousand names",
            post(_ONE, f"{SCORE}?" + "&".join(f"a{i}=1" for i in range(1_000))),
            422,
            "wrong-query",
            f"query parameter 'a0': expected {one_of}'a0'",
        ),
        Case(
            "a name of 3,000 letters",
            post(_ONE, f"{SCORE}?{'a' * 3_000}=1"),
            422,
            "wrong-query",
            f"query parameter '{'a' * 59}…: expected {one_of}'{'a' * 59}…",
        ),
        Case(
            "a rate that is not carried",
            post(_ONE, f"{SCORE}?rate=0.0000001"),
            422,
            "rate-not-carried",
            "false-alarm rate 1e-07 ",
        ),
        Case("a rate too small for a float", post(_ONE, f"{SCORE}?rate=1e-400"), 200),
        Case(
            "a confidence that is not carried",
            post(_ONE, f"{SCORE}?rate=0.01&confidence=0.99"),
            422,
            "rate-not-carried",
            "false-alarm rate 0.01 ",
        ),
        _wrong(
            "strict=true",
            "strict",
            "false with JSON lines, whose answer begins before the last record came, got",
            LINES,
        ),
        _wrong(
            "fdr=0.1",
            "window",
            "it with JSON lines: a false discovery rate of 0.1 holds in each so many records, got none",
            LINES,
        ),
        _wrong("window=5", "window", "it beside a false discovery rate, got none", LINES),
        _wrong("fdr=0.1&window=10001", "window", "at most 10000 records, got 10001", LINES),
        _wrong("window=5", "window", "it with JSON lines alone", CSV),
        _wrong("x=1", "x", one_of, CSV),
        Case(
            "a query of the protocol",
            post(b"{}", f"{INFER}?rate=0.1"),
            400,
            "error",
            "expected no query, for wishes are parameters of the request; got one",
        ),
        Case("a question mark alone", post(_ONE, f"{SCORE}?"), 200),
        Case("ampersands alone", post(_ONE, f"{SCORE}?&&"), 200),
        Case("a rate of zero", post(_ONE, f"{SCORE}?rate=0"), 200),
    ]
