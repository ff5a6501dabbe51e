"""Promises about a stranger's bytes: on known inputs, on those that hypothesis makes, and on those of a fuzzer."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import TOKENS, seeds
from tests.fuzz.targets import FILES, TARGETS

ROOT = Path(__file__).parents[2]
# Inputs of each target in CI, so that all take half a minute; `make fuzz` takes ten.
RUNS = {"records": 1_500, "request": 600, "protocol": 1_500, "bundle": 800}
NAMES = ["id", "x", "a:b", "n", "t", "on", "why", 'q"\\', "a", "b", "c", "pressure", "valve", "heated", "in/out [l/s]"]


def _list(values: list[str]) -> str:
    return f"[{','.join(values)}]"


def _object(pairs: list[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{name}:{value}" for name, value in pairs) + "}"


_numbers = st.floats(allow_nan=False).map(repr).filter(lambda text: "inf" not in text)
_digits = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
_texts = st.sampled_from(["u", "v:w", "r", "open", "2026-03-02", "2026-03-02T08:15:00+01:00", ":"]) | st.text(
    max_size=5
)
_strings = st.builds(lambda text, ascii_only: json.dumps(text, ensure_ascii=ascii_only), _texts, st.booleans())
_scalars = _numbers | _digits | _strings | st.integers().map(str) | st.sampled_from(["null", "true", "false", "1", "2"])
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(_strings, inner), max_size=2).map(_object)
    ),
    max_leaves=3,
)
_names = st.sampled_from(NAMES).map(json.dumps) | st.sampled_from(NAMES).map(
    lambda name: f'"\\u{ord(name[0]):04x}{json.dumps(name[1:])[1:]}'
)


_pairs = st.lists(st.tuples(_names, _values), max_size=3)
_records = st.builds(
    lambda base, also: _object([*base.items(), *also]),
    st.sampled_from(
        [
            {'"x"': "1", '"a:b"': '"u"'},
            {'"a"': "1"},
            {'"pressure"': "5", '"valve"': '"open"', '"in/out [l/s]"': "20", '"heated"': "true"},
            {},
        ]
    ),
    _pairs,
)
_bodies = st.lists(_records, max_size=3).map(lambda records: f'{{"records":[{",".join(records)}]}}'.encode())


def _column_body(columns: list[tuple[str, list[str]]]) -> bytes:
    return f'{{"columns":{_object([(name, _list(values)) for name, values in columns])}}}'.encode()


_columns = st.integers(0, 2).flatmap(
    lambda n: st.lists(st.tuples(_names, st.lists(_scalars, min_size=n, max_size=n)), max_size=4).map(_column_body)
)


@st.composite
def _damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """An input with some bytes replaced, by a token or by nothing."""
    text = draw(whole)
    at = draw(st.integers(0, len(text)))
    token = draw(st.sampled_from(TOKENS) | st.binary(max_size=3))
    return text[:at] + token + text[at + draw(st.integers(0, 5)) :]


@pytest.mark.parametrize("target", TARGETS)
def test_no_seed_breaks_a_promise(target: str) -> None:
    for seed in seeds(target):
        TARGETS[target](seed)


@settings(max_examples=400, deadline=None)
@given(_bodies | _columns | _damaged(_bodies) | _damaged(_columns))
def test_a_body_is_decoded_as_its_twin_does(body: bytes) -> None:
    TARGETS["records"](body)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=4, max_size=4), st.lists(_records | st.text(max_size=9), max_size=4))
def test_lines_are_decoded_as_their_twin_does_however_they_are_cut(cuts: bytes, lines: list[str]) -> None:
    TARGETS["lines"](cuts + "\n".join(lines).encode(errors="replace"))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"", b"explain=all", b"fdr=0.2", b"strict=true", b"rate=0"]), _bodies | _damaged(_bodies))
def test_an_answer_is_of_its_form_finite_and_has_a_result_a_record_in_order(query: bytes, body: bytes) -> None:
    TARGETS["request"](query + b"\n" + body)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["rate", "confidence", "fdr", "per", "max_false_alarms", "records_per_s", "window", "x"]),
            _numbers | _digits | st.sampled_from(["day", "", "nan", "+1"]),
        ),
        max_size=4,
    )
)
def test_a_query_is_a_wish_that_means_something_or_refused(pairs: list[tuple[str, str]]) -> None:
    TARGETS["query"]("&".join(f"{name}={value}" for name, value in pairs).encode())


_columns_of_schema = st.fixed_dictionaries(
    {"name": st.text(max_size=3), "role": st.sampled_from(["field"] * 8 + ["id", "label", "x"])},
    optional={
        "kind": st.sampled_from(["numeric", "categorical", "boolean", "timestamp", None]),
        "nullable": st.booleans(),
        "spike": st.floats() | st.none(),
        "step": st.floats(),
        "categories": st.lists(st.text(max_size=2) | st.integers() | st.booleans(), max_size=3),
        "note": st.text(max_size=3),
    },
)


@settings(max_examples=300, deadline=None)
@given(
    st.fixed_dictionaries(
        {"columns": st.lists(_columns_of_schema, max_size=3)},
        optional={"format": st.sampled_from([1, 2, "1"]), "extra": st.sampled_from(["refuse", "ignore", 0])},
    )
)
def test_a_schema_is_written_and_read_again_the_same_or_refused(schema: dict[str, Any]) -> None:
    TARGETS["schema"](json.dumps(schema).encode())


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(FILES) - 1).flatmap(lambda place: _damaged(st.just(seeds("bundle")[place]))))
def test_a_bundle_with_a_damaged_file_that_its_digests_fit_is_a_bundle_or_refused(data: bytes) -> None:
    TARGETS["bundle"](data)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this platform")
@pytest.mark.parametrize("target", TARGETS)
def test_a_fuzzer_finds_nothing_in_a_thousand_inputs(target: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", target, "--runs", str(RUNS.get(target, 1_000))]
    found = subprocess.run(
        [*command, "--artifacts", str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert found.returncode == 0, found.stderr[-3_000:]
