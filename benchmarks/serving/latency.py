"""Latency at half of the highest rate, beside what the floor needs at the same rate."""

import statistics

import msgspec

from benchmarks.report import markdown_table
from benchmarks.serving import open_loop
from benchmarks.serving.bars import Bar
from benchmarks.serving.bodies import Body
from benchmarks.serving.process import Server
from benchmarks.serving.setup import Setup
from benchmarks.serving.targets import FLOOR, OURS, SCORE, Target

TITLE = "Latency at half of the highest rate"
_SECONDS, _N_CONNECTIONS = 3, 256
_FLOOR, _OURS = Target(FLOOR, "objects", "/"), Target(OURS, "objects", SCORE)
_EVEN, _RANDOM = "evenly", "at random"


class Found(msgspec.Struct, frozen=True):
    """The figures.

    Attributes:
        highest_rate: requests a second that the service answers in a closed loop, the highest of two concurrencies.
        floor: by how requests come, a run a round.
        ours: the same for the service.
    """

    highest_rate: float
    floor: dict[str, list[open_loop.Sent]]
    ours: dict[str, list[open_loop.Sent]]


def measure(setup: Setup) -> Found:
    """Finds the highest rate, then asks both at half of it in turn."""
    sent = setup.bodies(1)
    with setup.serving((_FLOOR, _OURS), sent) as (servers, _, _):
        rates = [cost.rate for n in (32, 128) for cost in setup.compared(servers, [_OURS], sent, n)[0]]
        highest = max(rates)
        found = Found(highest, {_EVEN: [], _RANDOM: []}, {_EVEN: [], _RANDOM: []})
        for number in range(setup.rounds):
            for how, seed in ((_EVEN, None), (_RANDOM, number)):
                for target, runs in ((_FLOOR, found.floor), (_OURS, found.ours)):
                    runs[how].append(_sent(setup, servers[target.program], target, sent["objects"], highest / 2, seed))
    return found


def bars(found: Found) -> list[Bar]:
    """What is asked of latency."""
    ratios = _ratios(found, _EVEN)
    note = f"rounds {min(ratios):.2f}–{max(ratios):.2f}"
    return [Bar("p99 over bare uvicorn's at the same rate", _median(ratios), 3, at_most=True, note=note)]


def section(found: Found) -> str:
    """Its table."""
    rows = [
        (
            name,
            how,
            f"{statistics.median(run.p50_ms or 0 for run in runs[how]):.2f}",
            f"{statistics.median(run.p99_ms or 0 for run in runs[how]):.2f}",
            f"{min(run.p99_ms or 0 for run in runs[how]):.2f}–{max(run.p99_ms or 0 for run in runs[how]):.2f}",
            f"{max(run.max_ms or 0 for run in runs[how]):.1f}",
            sum(run.n_due - run.statuses.get(200, 0) for run in runs[how]),
        )
        for how in (_EVEN, _RANDOM)
        for name, runs in ((FLOOR, found.floor), (OURS, found.ours))
    ]
    headings = ["server", "requests come", "p50, ms", "p99, ms", "lowest–highest p99", "slowest, ms", "failed"]
    at_random = _ratios(found, _RANDOM)
    return (
        f"One record a request, {found.highest_rate / 2:,.0f} requests/s, half of the {found.highest_rate:,.0f} "
        f"that a closed loop reaches; {_SECONDS} s a round, medians of {len(found.ours[_EVEN])} rounds. A latency "
        "counts from the moment that the request was due. The bar is taken where requests come evenly; where they come "
        f"at random, the ratio is {_median(at_random):.2f} ({min(at_random):.2f}–{max(at_random):.2f}).\n\n"
        f"{markdown_table(headings, rows)}"
    )


def _sent(setup: Setup, server: Server, target: Target, body: Body, rate: float, seed: int | None) -> open_loop.Sent:
    file = body.kept_in(setup.place.folder / "bodies", f"{target.form}.body")
    headers = {"Content-Type": body.content_type}
    return open_loop.sent(
        server.url + target.path,
        file,
        headers,
        rate,
        _SECONDS,
        n_connections=_N_CONNECTIONS,
        may_wait=True,
        seed=seed,
    )


def _ratios(found: Found, how: str) -> list[float]:
    pairs = zip(found.ours[how], found.floor[how], strict=True)
    return [ours.p99_ms / floor.p99_ms for ours, floor in pairs if ours.p99_ms and floor.p99_ms]


def _median(ratios: list[float]) -> float:
    return round(statistics.median(ratios), 3)
