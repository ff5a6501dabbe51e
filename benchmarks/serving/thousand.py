"""A thousand records a request, in every form that is read."""

import msgspec

from benchmarks.report import markdown_table
from benchmarks.serving import alone
from benchmarks.serving.bars import Bar, ratio
from benchmarks.serving.rounds import Cost, post
from benchmarks.serving.setup import Setup
from benchmarks.serving.single import table, unmeasured
from benchmarks.serving.targets import (
    BARE,
    BENTOML,
    FLOOR,
    INFER,
    LITSERVE,
    MLSERVER,
    ONNX,
    OURS,
    PYOD,
    SCORE,
    TORCH,
    Target,
)

TITLE = "A thousand records a request"
_N, _N_CONNECTIONS = 1000, 4
_UNEXPLAINED, _EXPLAINED = "nothing explained", "flagged explained"
_FLOOR = Target(FLOOR, "objects", "/")
_OURS = {form: Target(OURS, form, BARE, _UNEXPLAINED) for form in ("objects", "columns", "NDJSON", "CSV", "Arrow")}
_OURS_V2 = {form: Target(OURS, form, INFER) for form in ("v2 JSON", "v2 binary")}
_MLSERVER = {form: Target(MLSERVER, form, INFER) for form in ("v2 JSON", "v2 binary")}
_ONNX, _TORCH, _PYOD = (Target(name, "objects", "/score") for name in (ONNX, TORCH, PYOD))
_BENTOML = Target(BENTOML, "array", "/plain")
_LITSERVE = Target(LITSERVE, "array", "/predict")
_TARGETS = (
    _FLOOR,
    *_OURS.values(),
    *(Target(OURS, form, SCORE, _EXPLAINED) for form in ("objects", "columns")),
    *_OURS_V2.values(),
    _ONNX,
    _TORCH,
    _PYOD,
    *_MLSERVER.values(),
    _BENTOML,
    _LITSERVE,
)
_OVER_OBJECTS = ((_ONNX, 8), (_BENTOML, 2), (_LITSERVE, 3))


class Found(msgspec.Struct, frozen=True):
    """The figures.

    Attributes:
        session_run_us: CPU time of one run of the graph alone, µs.
        decode: the cheapest decoder of objects alone: its name and CPU time, µs.
        encode: the cheapest encoder of two numbers a record alone.
        answer_bytes: length of the service's answer.
        answer_written_us: CPU time to write such an answer from objects that are ready, µs.
        costs: of every target.
        not_measured: why, by target.
    """

    session_run_us: float
    decode: tuple[str, float]
    encode: tuple[str, float]
    answer_bytes: int
    answer_written_us: float
    costs: list[Cost]
    not_measured: dict[str, str]

    def cpu_us(self, target: Target) -> float | None:
        """CPU time of a request; None where there is none, or some were refused, which takes less."""
        return next((cost.cpu_us for cost in self.costs if cost.name == target.name and not cost.n_failed), None)

    @property
    def parts_us(self) -> float:
        """The parts of an answer to objects, each timed alone, together."""
        return (self.cpu_us(_FLOOR) or 0.0) + self.decode[1] + self.session_run_us + self.encode[1]


def measure(setup: Setup) -> Found:
    """Loads everyone."""
    run_us = alone.session_run_us(setup.graph, (_N,))[_N]
    codec = alone.codec_us(_N)
    sent = setup.bodies(_N)
    with setup.serving(_TARGETS, sent) as (servers, targets, problems):
        answer = post(servers[OURS], BARE, sent["objects"])[1]
        costs, silent = setup.compared(servers, targets, sent, _N_CONNECTIONS)
    return Found(
        session_run_us=run_us,
        decode=alone.cheapest(codec, "decode", "objects"),
        encode=alone.cheapest(codec, "encode", "scores columns"),
        answer_bytes=len(answer),
        answer_written_us=alone.rewriting_us(answer),
        costs=costs,
        not_measured=problems | silent,
    )


def bars(found: Found) -> list[Bar]:
    """What is asked of a thousand records a request."""
    ours = found.cpu_us(_OURS["objects"])
    asked = [Bar("objects: the sum of the parts alone over CPU", ratio(found.parts_us, ours), 0.7, at_most=False)]
    asked += [_against_mlserver(found, form, least) for form, least in (("v2 JSON", 2), ("v2 binary", 4))]
    for target, least in _OVER_OBJECTS:
        theirs = found.cpu_us(target)
        what, note = f"{target.program}: CPU over ours with objects", _most(found, theirs)
        asked.append(Bar(what, ratio(theirs, ours), least, at_most=False, note=note))
    return asked


def _against_mlserver(found: Found, form: str, least: float) -> Bar:
    same = found.cpu_us(_MLSERVER[form])
    theirs = same or found.cpu_us(_MLSERVER["v2 JSON"])
    note = _most(found, theirs) + ("" if same else "; MLServer does not read this body: its v2 JSON stands for it")
    whole = ratio(theirs, found.cpu_us(_OURS_V2[form]))
    return Bar(f"{form}: MLServer's CPU over ours", whole, least, at_most=False, note=note)


def _most(found: Found, theirs_us: float | None) -> str:
    """What the ratio would be if the service took no time beside the graph, which peers run as well."""
    most = ratio(theirs_us, found.session_run_us)
    return "" if most is None else f"the graph alone allows {most:.2f}"


def section(found: Found) -> str:
    """Its tables."""
    parts = [
        ("bare uvicorn that reads the body", found.cpu_us(_FLOOR) or 0.0),
        (f"decode: {found.decode[0]}", found.decode[1]),
        ("`session.run`", found.session_run_us),
        (f"encode: {found.encode[0]}", found.encode[1]),
    ]
    ours = found.cpu_us(_OURS["objects"])
    with_answer = found.parts_us - found.encode[1] + found.answer_written_us
    sentences = (
        f"The parts of an answer to objects, each timed alone, take {found.parts_us:,.0f} µs together, "
        f"{_share(found.parts_us, ours)} of what the service takes. Their answer is two numbers a record. The "
        f"service's own has twelve, {found.answer_bytes:,} bytes in all. Only to write such an answer from "
        f"objects that are ready takes {found.answer_written_us:,.0f} µs; with that the share is "
        f"{_share(with_answer, ours)}."
    )
    alone_table = markdown_table(["alone", "CPU, µs"], [(name, f"{us:,.0f}") for name, us in parts])
    heading = f"Concurrency {_N_CONNECTIONS}. {_EXPLAINED.capitalize()}: about one record in a hundred is flagged here."
    return "\n\n".join([heading, table(found.costs, _N), *unmeasured(found.not_measured), alone_table, sentences])


def _share(part: float, whole: float | None) -> str:
    return "?" if whole is None else f"{part / whole:.2f}"
