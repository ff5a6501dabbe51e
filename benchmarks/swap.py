"""Versions of a model swapped under traffic: does every request get the answer of the version that it is told?

`python -m benchmarks.swap` serves two versions of the demo model that score differently, and swaps them by turns with a
call and by changing the alias in the store, while requests of three forms come at a given rate.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np

from benchmarks.report import RESULTS, markdown_table, write_report
from benchmarks.serving_process import serving, wait_until_ready
from nelbo.bundle import Bundle, Golden, read_bundle, write_bundle
from nelbo.calibration import STATISTICS
from nelbo.scoring import Scorer
from nelbo.store import Store
from service.v2.inputs import datatypes

_NAME = "machines"
_VERSIONS = ("a", "b")
_TOLERANCE = 1e-5  # relative: requests that come together are scored together
_LOOK_S = 0.2  # between two looks at the store
_REST_S = 0.1  # after each swap, so that both versions meet requests
_PATIENCE_S = 30.0
_IDLE_S = 2.0  # of a connection that is used again; the service closes it after five
_RELOADS = 100  # at once
_MOST_LOADS = 25  # for these; chosen, a few would do

Said = list[tuple[float, float, bool]]  # of each record its score, its p-value, whether it is flagged


@dataclass(frozen=True)
class Question:
    """One request, and what each version says to it.

    Attributes:
        form: `json`, `lines` or `v2`.
        path: to post to.
        content_type: of the body.
        body: its bytes.
        expected: what the version itself says, by its name.
    """

    form: str
    path: str
    content_type: str
    body: bytes
    expected: Mapping[str, Said]


@dataclass
class Tally:
    """What was seen.

    Attributes:
        answers: right ones, by form and version.
        failures: every request that failed or was answered otherwise, in words.
        seconds: of each answer.
        most_in_memory: versions of the model at a time, as its metric says.
        n_scrapes: of that metric.
    """

    answers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    most_in_memory: int = 0
    n_scrapes: int = 0


# --- two versions ------------------------------------------------------------------------------------


def two_versions(models: Path, root: Path) -> dict[str, Scorer]:
    """Writes two versions of the demo model, and gives their scorers by version.

    The second scores a tenth higher, and has every other calibration record.
    """
    demo = read_bundle(Store(models).live(_NAME))
    calibration = demo.calibration
    energy = calibration.combination.energy
    steeper = energy.model_copy(update={"y": tuple(1.1 * y for y in energy.y), "slope": 1.1 * energy.slope})
    other = calibration.model_copy(
        update={
            "combination": calibration.combination.model_copy(update={"energy": steeper}),
            "scores": {name: scores[::2] for name, scores in calibration.scores.items()},
        }
    )
    return {
        version: Scorer(read_bundle(_written(root, demo, version, of)))
        for version, of in zip(_VERSIONS, (calibration, other), strict=True)
    }


def _written(root: Path, demo: Bundle, version: str, calibration: Any) -> Path:
    scorer = Scorer(Bundle(demo.manifest, demo.schema, demo.graph, calibration, demo.reference, (), ""))
    records = [entry.record for entry in demo.golden]
    statistics = scorer.score(scorer.decoder.objects(records)).statistics
    golden = [Golden(record, *(float(statistics[n][i]) for n in STATISTICS)) for i, record in enumerate(records)]
    files = {
        "schema.json": demo.schema.to_json(),
        "score.onnx": demo.graph,
        "calibration.json": calibration.model_dump_json().encode(),
        "reference.json": demo.reference.model_dump_json().encode(),
        "golden.ndjson": msgspec.json.Encoder().encode_lines(golden),
    }
    return write_bundle(root, demo.manifest.model_copy(update={"version": version}), files)


# --- questions ---------------------------------------------------------------------------------------


def questions(scorers: Mapping[str, Scorer]) -> list[Question]:
    """Of each golden record one in each form, as if it were three of three."""
    scorer = scorers[_VERSIONS[0]]
    records = [entry.record for entry in scorer.bundle.golden]
    found = []
    for i in range(len(records)):
        some = [records[(i + j) % len(records)] for j in range(3)]
        expected = {version: _said(of, some) for version, of in scorers.items()}
        v1, v2 = f"/v1/models/{_NAME}/score?explain=none", f"/v2/models/{_NAME}/infer"
        lines = msgspec.json.Encoder().encode_lines(some)
        found += [
            Question("json", v1, "application/json", msgspec.json.encode({"records": some}), expected),
            Question("lines", v1, "application/x-ndjson", lines, expected),
            Question("v2", v2, "application/json", _tensors(scorer, some), expected),
        ]
    return found


def _said(scorer: Scorer, records: Sequence[dict[str, Any]]) -> Said:
    scored = scorer.score(scorer.decoder.objects(records))
    columns = scored.statistics["score"], scored.p_values["score"], scored.flagged
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _tensors(scorer: Scorer, records: Sequence[dict[str, Any]]) -> bytes:
    inputs = [
        {
            "name": of.name,
            "datatype": datatypes(of)[0],
            "shape": [len(records)],
            "data": [record[of.name] for record in records],
        }
        for of in scorer.schema.fields
    ]
    return msgspec.json.encode({"inputs": inputs})


@dataclass(frozen=True)
class Answer:
    """What came back, its head in lower case."""

    head: str
    body: bytes

    @property
    def status(self) -> int:
        """Of the first line."""
        return int(self.head.split()[1])

    def header(self, name: str) -> str:
        """A header's value, "" where there is none."""
        lines = [line.partition(": ") for line in self.head.splitlines()]
        return next((value for key, _, value in lines if key == name), "")


class Connections:
    """A pool of connections: an HTTP library would take longer to ask than the service to answer.

    Args:
        url: of the service.
    """

    def __init__(self, url: str) -> None:
        self._host, self._port = url.removeprefix("http://").split(":")
        self._free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []  # since when each is idle

    async def post(self, path: str, content_type: str, body: bytes) -> Answer:
        """One request on a connection of its own."""
        reader, writer = await self._opened()
        lines = [f"POST {path} HTTP/1.1", "host: x", f"content-type: {content_type}", f"content-length: {len(body)}"]
        writer.write("\r\n".join([*lines, "\r\n"]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        answer = Answer(head, await _body(reader, head))
        self._free.append((time.monotonic(), reader, writer))
        return answer

    async def _opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            since, reader, writer = self._free.pop()
            if time.monotonic() - since < _IDLE_S:
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, int(self._port))

    def close(self) -> None:
        """Closes what is not in use."""
        for _, _, writer in self._free:
            writer.close()


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    if "transfer-encoding: chunked" not in head:
        return await reader.readexactly(int(Answer(head, b"").header("content-length")))
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readline()
    return b"".join(parts)


def answered(question: Question, answer: Answer) -> tuple[str, Said]:
    """The version that an answer names, and what it says of each record."""
    if question.form == "lines":
        version = answer.header("nelbo-model").rpartition("@")[2]
        results = [msgspec.json.decode(line) for line in answer.body.splitlines()]
    else:
        found = msgspec.json.decode(answer.body)
        if question.form == "v2":
            outputs = {output["name"]: output["data"] for output in found["outputs"]}
            return found["model_version"], list(
                zip(outputs["score"], outputs["p_value"], outputs["flagged"], strict=True)
            )
        version, results = found["model"]["version"], found["results"]
    return version, [(of["score"]["value"], of["p_value"], of["flagged"]) for of in results]


def fault(question: Question, answer: Answer) -> str | None:
    """What is wrong with an answer, None where nothing is."""
    if answer.status != 200:
        return f"{question.form}: status {answer.status}: {answer.body!r}"
    version, said = answered(question, answer)
    expected = question.expected[version]
    if len(said) != len(expected) or not np.allclose(said, expected, rtol=_TOLERANCE, atol=0):
        return f"{question.form}: not what version '{version}' says: {said}, expected {expected}"
    return None


# --- traffic and swaps -------------------------------------------------------------------------------


class Run:
    """Requests at a rate, swaps meanwhile, and what came of it.

    Args:
        client: of the service, for all but the traffic.
        connections: to it.
        store: that it serves.
        asked: the requests.
        rate: of them a second.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        connections: Connections,
        store: Store,
        asked: Sequence[Question],
        rate: float,
    ) -> None:
        self._client, self._connections = client, connections
        self._store, self._asked, self._rate = store, asked, rate
        self.tally = Tally()

    async def swaps(self, n: int) -> None:
        """Swaps so often, by turns with a call and by the store, under traffic."""
        traffic = asyncio.ensure_future(self._traffic())
        scrapes = asyncio.ensure_future(self._scrapes())
        try:
            for i in range(n):
                version = _VERSIONS[(i + 1) % 2]
                await (self._call(version) if i % 2 else self._change(version))
                await asyncio.sleep(_REST_S)
        finally:
            for task in (traffic, scrapes):
                task.cancel()
            await asyncio.gather(traffic, scrapes, return_exceptions=True)

    async def reloads(self, n: int) -> tuple[dict[str, int], int]:
        """How so many calls at once are answered, and how many loads that took."""
        before = await self._loads()
        path = f"/v1/models/{_NAME}/reload"
        answers = await asyncio.gather(*(self._client.post(path) for _ in range(n)))
        statuses: dict[str, int] = {}
        for answer in answers:
            statuses[str(answer.status_code)] = statuses.get(str(answer.status_code), 0) + 1
        return statuses, await self._loads() - before

    async def _call(self, version: str) -> None:
        answer = await self._client.post(f"/v1/models/{_NAME}/promote?version={version}")
        if answer.status_code != 200 or answer.json()["version"] != version:
            self.tally.failures.append(f"promote: {answer.status_code} {answer.text}")

    async def _change(self, version: str) -> None:
        await asyncio.to_thread(self._store.promote, _NAME, version)
        deadline = time.monotonic() + _PATIENCE_S
        while (await self._serving()) != version:
            if time.monotonic() > deadline:
                self.tally.failures.append(f"the store says '{version}' and something else serves")
                return
            await asyncio.sleep(0.02)

    async def _serving(self) -> str:
        answer = await self._client.get("/v1/models")
        return str(answer.json()["models"][0]["version"])

    async def _traffic(self) -> None:
        start, under_way = time.perf_counter(), set()
        i = 0
        try:
            while True:
                await asyncio.sleep(max(0.0, start + i / self._rate - time.perf_counter()))
                task = asyncio.ensure_future(self._ask(self._asked[i % len(self._asked)]))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                i += 1
        finally:
            await asyncio.gather(*under_way)

    async def _ask(self, question: Question) -> None:
        started = time.perf_counter()
        try:
            asked = self._connections.post(question.path, question.content_type, question.body)
            answer = await asyncio.wait_for(asked, _PATIENCE_S)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.tally.failures.append(f"{question.form}: {type(error).__name__}")
            return
        self.tally.seconds.append(time.perf_counter() - started)
        wrong = fault(question, answer)
        if wrong is not None:
            self.tally.failures.append(wrong)
            return
        key = f"{question.form}, version {answered(question, answer)[0]}"
        self.tally.answers[key] = self.tally.answers.get(key, 0) + 1

    async def _scrapes(self) -> None:
        while True:
            text = (await self._client.get("/metrics")).text
            in_memory = int(_value(text, f'nelbo_model_versions_in_memory{{model="{_NAME}"}}'))
            self.tally.most_in_memory = max(self.tally.most_in_memory, in_memory)
            self.tally.n_scrapes += 1
            await asyncio.sleep(0.05)

    async def _loads(self) -> int:
        text = (await self._client.get("/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith("nelbo_model_loads_total{")]
        return int(sum(float(line.split()[-1]) for line in lines))


def _value(text: str, series: str) -> float:
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(series))


# --- the whole ---------------------------------------------------------------------------------------


async def _measured(url: str, store: Store, asked: Sequence[Question], n_swaps: int, rate: float) -> dict[str, Any]:
    limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=_PATIENCE_S) as client:
        connections = Connections(url)
        run = Run(client, connections, store, asked, rate)
        started = time.perf_counter()
        await run.swaps(n_swaps)
        seconds = time.perf_counter() - started
        statuses, n_loads = await run.reloads(_RELOADS)
        connections.close()
    p50, p99, most = (1e3 * np.quantile(run.tally.seconds, [0.5, 0.99, 1.0])).round(1).tolist()
    n = len(run.tally.seconds)
    tally = asdict(run.tally)
    del tally["seconds"]
    times = {"p50_ms": p50, "p99_ms": p99, "max_ms": most, "duration_s": round(seconds, 1), "rate": round(n / seconds)}
    return {**tally, **times, "reload_statuses": statuses, "reload_loads": n_loads}


def verdicts(found: Mapping[str, Any], n_swaps: int) -> list[tuple[str, bool]]:
    """What is asked of a run, each with whether it was so."""
    n = sum(found["answers"].values())
    both = {key.rpartition(" ")[2] for key in found["answers"]} == set(_VERSIONS)
    return [
        (
            f"{n_swaps} swaps, {n} requests, {found['rate']} a second: "
            f"{len(found['failures'])} failed or not as their version says",
            both and not found["failures"],
        ),
        (
            f"at most {found['most_in_memory']} versions in memory, in {found['n_scrapes']} looks",
            0 < found["most_in_memory"] <= 2,
        ),
        (
            f"{_RELOADS} reload calls at once: answered {found['reload_statuses']}, {found['reload_loads']} loads",
            found["reload_statuses"] == {"200": _RELOADS} and 1 <= found["reload_loads"] <= _MOST_LOADS,
        ),
    ]


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Prints a verdict a line; 1 where one of them is not as asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.swap")
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=200.0)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        asked = questions(two_versions(chosen.models, root))
        store = Store(root)
        store.promote(_NAME, _VERSIONS[0])
        with serving(root, RELOAD_S=_LOOK_S) as service:
            wait_until_ready(service.url)
            found = asyncio.run(_measured(service.url, store, asked, chosen.swaps, chosen.rate))
    judged = verdicts(found, chosen.swaps)
    lines = [f"{'passes' if is_met else 'MISSES'}: {text}" for text, is_met in judged]
    lines.append(f"latency ms: median {found['p50_ms']}, 99th percentile {found['p99_ms']}, longest {found['max_ms']}")
    print("\n".join(lines + found["failures"][:5]))
    rows = sorted(found["answers"].items())
    body = "\n".join(f"- {line}" for line in lines) + "\n\n" + markdown_table(["answers", "right ones"], rows)
    found["passes"] = all(is_met for _, is_met in judged)
    write_report("swap", "Swaps under traffic", "make bench-swap", found, body, results)
    return 0 if found["passes"] else 1


if __name__ == "__main__":
    sys.exit(main())
