"""One record a request, at three concurrencies: what a request costs, and what of it is not the model's."""

from collections.abc import Mapping, Sequence

import msgspec

from benchmarks.report import markdown_table
from benchmarks.serving import alone, peers
from benchmarks.serving.bars import Bar, less, ratio
from benchmarks.serving.rounds import Cost, post
from benchmarks.serving.setup import Setup
from benchmarks.serving.targets import (
    BENTOML,
    ENVIRONMENTS,
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

TITLE = "One record a request"
_CONCURRENCIES = (1, 32, 128)
_OF_BARS = 32
_BATCH = 16  # what a run of the graph is charged to the service as, whatever it batches
_FLOOR = Target(FLOOR, "objects", "/")
_OURS = Target(OURS, "objects", SCORE)
_ONNX, _TORCH, _PYOD = (Target(name, "objects", "/score") for name in (ONNX, TORCH, PYOD))
_MLSERVER = Target(MLSERVER, "v2 JSON", INFER)
_BENTOML = Target(BENTOML, "array", "/plain")
_LITSERVE = Target(LITSERVE, "array", "/predict")
_TARGETS = (
    _FLOOR,
    _OURS,
    Target(OURS, "v2 JSON", INFER),
    _ONNX,
    _TORCH,
    _PYOD,
    _MLSERVER,
    _BENTOML,
    Target(BENTOML, "array", "/batched", "batches of its own"),
    _LITSERVE,
)
_OF_OTHER_MODELS = (_FLOOR, _TORCH, _PYOD)
_OVERHEADS = ((_ONNX, 6), (_MLSERVER, 10), (_BENTOML, 20), (_LITSERVE, 12))
_WHOLES = ((_TORCH, 5), (_PYOD, 10))


class Found(msgspec.Struct, frozen=True):
    """The figures.

    Attributes:
        session_run_us: CPU time of one run of the graph alone, by its number of records, µs.
        costs: by concurrency.
        neg_elbo: −ELBO of the record, nats, as each target with this graph answers it.
        not_measured: why, by target.
        peers: versions, by environment.
    """

    session_run_us: dict[int, float]
    costs: dict[int, list[Cost]]
    neg_elbo: dict[str, float]
    not_measured: dict[str, str]
    peers: dict[str, dict[str, str]]


def measure(setup: Setup) -> Found:
    """Loads everyone."""
    session_run_us = alone.session_run_us(setup.graph, (1, _BATCH))
    sent = setup.bodies(1)
    with setup.serving(_TARGETS, sent) as (servers, targets, problems):
        answers = {target: post(servers[target.program], target.path, sent[target.form])[1] for target in targets}
        costs: dict[int, list[Cost]] = {}
        for n in _CONCURRENCIES:
            costs[n], silent = setup.compared(servers, targets, sent, n)
            problems.update(silent)
    neg_elbo = {target.name: neg_elbo_of(answers[target]) for target in targets if target not in _OF_OTHER_MODELS}
    names = sorted(set(ENVIRONMENTS.values()))
    return Found(
        session_run_us, costs, neg_elbo, problems, {name: peers.versions(setup.place.peers, name) for name in names}
    )


def bars(found: Found) -> list[Bar]:
    """What is asked of one record a request."""
    costs = {cost.name: cost.cpu_us for cost in found.costs[_OF_BARS]}
    run_us = found.session_run_us
    ours = less(costs.get(_OURS.name), run_us[_BATCH] / _BATCH)
    asked = [
        Bar(
            "(CPU − `session.run` of 16 / 16) over bare uvicorn", ratio(ours, costs.get(_FLOOR.name)), 2.3, at_most=True
        )
    ]
    for target, least in _OVERHEADS:
        theirs = less(costs.get(target.name), run_us[1])
        asked.append(
            Bar(f"{target.program}: CPU − `session.run`, over ours", ratio(theirs, ours), least, at_most=False)
        )
    for target, least in _WHOLES:
        whole = ratio(costs.get(target.name), costs.get(_OURS.name))
        asked.append(Bar(f"{target.program}: CPU over ours", whole, least, at_most=False))
    return asked


def section(found: Found) -> str:
    """Its tables."""
    run_us = found.session_run_us
    text = (
        f"`session.run` of the graph alone: {run_us[1]:.0f} µs for one record, {run_us[_BATCH]:.0f} µs for "
        f"{_BATCH}. The bars are taken at concurrency {_OF_BARS}. All who serve this graph answer the same: −ELBO of "
        f"the record is {min(found.neg_elbo.values()):.4f} to {max(found.neg_elbo.values()):.4f} nats."
    )
    tables = [f"### Concurrency {n}\n\n{table(costs, 1)}" for n, costs in found.costs.items()]
    versions = "\n".join(
        f"- {name}: " + ", ".join(f"{package} {version}" for package, version in packages.items())
        for name, packages in found.peers.items()
    )
    return "\n\n".join([text, *tables, *unmeasured(found.not_measured), f"Versions of the peers:\n\n{versions}"])


def neg_elbo_of(answer: bytes) -> float:
    """The number that an answer to one record is about, whichever server's answer it is."""
    value = msgspec.json.decode(answer)
    match value:
        case {"results": [{"elbo": {"value": float(elbo)}}]}:
            return -elbo
        case {"outputs": [*outputs]}:
            by_name = {output["name"]: output["data"][0] for output in outputs}
            return float(by_name["neg_elbo"] if "neg_elbo" in by_name else -by_name["elbo"])
        case {"scores": [found]} | [found]:
            return float(found)
    raise ValueError(f"expected an answer with −ELBO of one record, got one with {value!r:.60}")


def table(costs: Sequence[Cost], n_records: int) -> str:
    """Costs of requests of so many records."""
    headings = [
        "server, body",
        "CPU a request, µs",
        "lowest–highest",
        "over the first row",
        "records a core-second",
        "requests/s",
        "p50, ms",
        "p99, ms",
        "PSS, MB",
        "failed",
    ]
    rows = [
        (
            cost.name,
            f"{cost.cpu_us:,.0f}",
            f"{cost.cpu_low_us:,.0f}–{cost.cpu_high_us:,.0f}",
            f"{cost.cpu_us / costs[0].cpu_us:.2f}",
            f"{1e6 * n_records / cost.cpu_us:,.0f}",
            f"{cost.rate:,.0f}",
            f"{cost.p50_ms:.2f}",
            f"{cost.p99_ms:.2f}",
            f"{cost.pss_mb:.0f}",
            cost.n_failed,
        )
        for cost in costs
    ]
    return markdown_table(headings, rows)


def unmeasured(problems: Mapping[str, str]) -> list[str]:
    """A paragraph that names who did not answer, if anyone did not."""
    if not problems:
        return []
    return ["Not measured:\n\n" + "\n".join(f"- {name}: `{problem}`" for name, problem in problems.items())]
