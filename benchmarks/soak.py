"""Whether a service stays as it is: requests of every kind for long, while its model is swapped again and again.

python -m benchmarks.soak [--minutes 30] [--requests 100000] [--reloads 1000]

Figures and verdicts go to benchmarks/results/soak.*, a picture to build/soak.png.
"""

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import RESULTS, markdown_table, write_report
from nelbo.store import Store
from tests.bundles import normal_records, odd_record, write_tiny_bundle
from tests.service.v2.test_infer import inputs_of

_VERSIONS = ("20260101T000000Z-aaaa", "20260201T000000Z-bbbb")
_CLIENTS = 4
_WARM_UP = 0.15  # of the run
_N_SAMPLES = 200
_N_TOGETHER = 25  # requests of a kind that each client sends one after the other, before the warm-up
_N_REFERENCE = 50  # requests a sample
_MOST_SLOPE, _MOST_LATENCY = 0.01, 1.25  # asked for: a share of the memory over the run; last third by first
_PICTURE = Path("build/soak.png")
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Kind:
    """One kind of request.

    Attributes:
        share: of all requests.
        path, body, content_type: of it.
        expected: the status of its answer.
    """

    share: float
    path: str
    body: bytes | None
    content_type: str = "application/json"
    expected: int = 200


_RELOAD = Kind(0, "/v1/models/pumps/reload", b"")


def kinds() -> dict[str, Kind]:
    """What clients send."""
    score = "/v1/models/pumps/score"
    normal, odd = normal_records(1_000, seed=3), [odd_record()]
    csv = "serial,pressure,valve,in/out [l/s],rpm,heated\n" + "P-1,5.0,open,20.0,1500,true\n" * 50
    return {
        "single": Kind(0.60, score, _json({"records": normal[:1]})),
        "thousand": Kind(0.03, f"{score}?explain=none", _json({"records": normal})),
        "explained": Kind(0.07, f"{score}?explain=all", _json({"records": normal[:2] + odd})),
        "stream": Kind(0.07, score, b"".join(_json(r) + b"\n" for r in normal[:50]), "application/x-ndjson"),
        "csv": Kind(0.05, score, csv.encode(), "text/csv"),
        "columns": Kind(0.04, score, _json({"columns": _columns(normal[:20])})),
        "v2": Kind(0.05, "/v2/models/pumps/infer", _json({"inputs": inputs_of(odd)})),
        "no JSON": Kind(0.03, score, b'{"records": [', expected=400),
        "wrong record": Kind(0.02, f"{score}?strict=true", _json({"records": [{"pressure": "x"}]}), expected=422),
        "no such model": Kind(0.01, "/v1/models/none/score", _json({"records": []}), expected=404),
        "metrics": Kind(0.01, "/metrics", None),
        "ready": Kind(0.02, "/healthz/ready", None),
    }


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _columns(records: Sequence[Mapping[str, object]]) -> dict[str, list[object]]:
    return {name: [record[name] for record in records] for name in records[0]}


# --- a process that is watched -----------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A look at the process.

    Attributes:
        at_s: since the start of the run.
        pss_mb, rss_mb: memory, of 10⁶ bytes.
        p50_ms, p99_ms: of single records since the last look; None where there were none.
        reference_ms: median of the same request to a service that gets nothing else and is never reloaded; how fast the
            machine is changes within half an hour by more than what is looked for.
    """

    at_s: float
    pss_mb: float
    rss_mb: float
    p50_ms: float | None = None
    p99_ms: float | None = None
    reference_ms: float = 1.0


@dataclass(frozen=True)
class Rest:
    """What the process holds while nobody asks."""

    descriptors: int
    threads: int


def rest_of(process: int) -> Rest:
    """What a process holds now."""
    of_process = Path("/proc", str(process))
    return Rest(len(os.listdir(of_process / "fd")), len(os.listdir(of_process / "task")))


def _memory(process: int) -> tuple[float, float]:
    text = Path("/proc", str(process), "smaps_rollup").read_text(encoding="utf-8")
    kib = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()[1:]}
    return kib["Pss"] * 1.024e-3, kib["Rss"] * 1.024e-3


@contextmanager
def _service(models: Path, log: Path, **settings: object) -> Iterator[tuple[int, int]]:
    """A service; its process and port. Its log goes to a file, so that it is never full."""
    given = {f"NELBO_{name}": str(value) for name, value in ({"MODELS": models, "PORT": 0} | settings).items()}
    with log.open("wb") as stderr:
        process = subprocess.Popen([sys.executable, "-P", "-m", "service"], env=os.environ | given, stderr=stderr)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while log.read_bytes().count(b"\n") < 2:  # it listens, and a model is loaded
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield process.pid, int(json.loads(log.read_text().splitlines()[0])["port"])
    finally:
        process.terminate()
        process.wait(_PATIENCE_S)


# --- those who ask -----------------------------------------------------------------------------------


@dataclass
class Run:
    """Requests of some seconds.

    Attributes:
        port: of the service.
        n_requests: to send.
        n_reloads: to ask for.
        seconds: that they are spread over.
    """

    port: int
    n_requests: int
    n_reloads: int
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    unexpected: Counter[str] = field(default_factory=Counter)
    _times_s: list[float] = field(default_factory=list)  # of single records, since they were taken last

    def ask(self, store: Store) -> list[threading.Thread]:
        """Starts all who ask."""
        threads = [threading.Thread(target=self._client, args=(i,), daemon=True) for i in range(_CLIENTS)]
        if self.n_reloads:
            threads.append(threading.Thread(target=self._reloads, args=(store,), daemon=True))
        for thread in threads:
            thread.start()
        return threads

    def crowd(self, store: Store) -> None:
        """All clients send one kind at once, each kind in turn, and the versions are swapped meanwhile.

        What is kept of the most that requests have ever taken together is then kept before the run, not found in it.
        """
        for i, (name, kind) in enumerate(kinds().items()):
            threads = [threading.Thread(target=self._repeat, args=(name, kind), daemon=True) for _ in range(_CLIENTS)]
            for thread in threads:
                thread.start()
            store.promote("pumps", _VERSIONS[i % 2])
            self._repeat("reload", _RELOAD, 3)
            _until(threads)

    def _repeat(self, name: str, kind: Kind, n: int = _N_TOGETHER) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)) as connection:
            for _ in range(n):
                self._send(connection, name, kind)

    def times_ms(self) -> NDArray[np.float64]:
        """How long single records took, since the last call."""
        taken, self._times_s = self._times_s, []
        return np.array(taken) * 1e3

    def _client(self, number: int) -> None:
        known, chance = kinds(), random.Random(number)  # noqa: S311
        names, shares = list(known), [kind.share for kind in known.values()]
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)
        started, n = time.monotonic(), self.n_requests // _CLIENTS
        for i in range(n):
            (name,) = chance.choices(names, shares)
            self._send(connection, name, known[name])
            time.sleep(max(0.0, started + (i + 1) * self.seconds / n - time.monotonic()))
        connection.close()

    def _send(self, connection: http.client.HTTPConnection, name: str, kind: Kind) -> None:
        started = time.perf_counter()
        headers = {"content-type": kind.content_type}
        try:
            connection.request("GET" if kind.body is None else "POST", kind.path, kind.body, headers)
            answer = connection.getresponse()
            answer.read()
            status = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            status = type(error).__name__
        if name == "single":
            self._times_s.append(time.perf_counter() - started)
        self.counts[name] += 1
        if status != str(kind.expected):
            self.unexpected[f"{name}: {status}"] += 1

    def _reloads(self, store: Store) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)
        started = time.monotonic()
        for i in range(self.n_reloads):
            store.promote("pumps", _VERSIONS[i % 2])
            self._send(connection, "reload", _RELOAD)
            time.sleep(max(0.0, started + (i + 1) * self.seconds / self.n_reloads - time.monotonic()))
        connection.close()


class Reference:
    """A single record, asked of a service that does nothing else."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)
        self._kind = kinds()["single"]
        self.p50_ms()  # warm

    def p50_ms(self) -> float:
        """The median of some."""
        taken = []
        for _ in range(_N_REFERENCE):
            started = time.perf_counter()
            headers = {"content-type": self._kind.content_type}
            self._connection.request("POST", self._kind.path, self._kind.body, headers)
            self._connection.getresponse().read()
            taken.append(time.perf_counter() - started)
        return round(float(np.median(taken)) * 1e3, 3)

    def close(self) -> None:
        """Asks no more."""
        self._connection.close()


# --- figures -----------------------------------------------------------------------------------------


def slope(samples: Sequence[Sample]) -> float:
    """How much the memory grows from the first sample to the last, as a share of it, by a straight line through all.

    Of the resident set, since the proportional one changes with other processes that use the same libraries.
    """
    at = np.array([sample.at_s for sample in samples])
    memory = np.array([sample.rss_mb for sample in samples])
    growth = np.polyfit(at, memory, 1)[0] * (at[-1] - at[0])
    return float(growth / memory.mean())


def latency_ratio(samples: Sequence[Sample]) -> float:
    """Median p50, each by its reference, of the last third of the samples by that of the first."""
    found = [sample.p50_ms / sample.reference_ms for sample in samples if sample.p50_ms is not None]
    third = max(1, len(found) // 3)
    return float(np.median(found[-third:]) / np.median(found[:third]))


def measure(minutes: float, n_requests: int, n_reloads: int) -> dict[str, object]:
    """Runs it all."""
    seconds, warm = 60 * minutes, _WARM_UP
    with tempfile.TemporaryDirectory() as place:
        models = Path(place, "models")
        for seed, version in enumerate(_VERSIONS):
            write_tiny_bundle(models, version=version, seed=seed)
        with (
            _service(models, Path(place, "log")) as (process, port),
            _service(models, Path(place, "log of the reference"), RELOAD_S=0) as (_, reference_port),
        ):
            peak = Run(port, 0, 0, 0)
            peak.crowd(Store(models))
            run = Run(port, int(warm * n_requests), int(warm * n_reloads), warm * seconds)
            _until(run.ask(Store(models)))
            before = _at_rest(process)
            rest = Run(port, n_requests - run.n_requests, n_reloads - run.n_reloads, seconds - run.seconds)
            rest.unexpected += peak.unexpected + run.unexpected
            with closing(Reference(reference_port)) as reference:
                samples = _watched(process, rest, rest.ask(Store(models)), reference)
            after = _at_rest(process)
    return {
        "minutes": minutes,
        "requests": dict(sorted((run.counts + rest.counts).items())),
        "unexpected": dict(rest.unexpected),
        "memory_slope": round(slope(samples), 5),
        "latency_ratio": round(latency_ratio(samples), 3),
        "at_rest": [asdict(before), asdict(after)],
        "samples": [asdict(sample) for sample in samples],
    }


def _until(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def _at_rest(process: int) -> Rest:
    """Once what clients held is given back; keeps looking while it changes."""
    found = rest_of(process)
    for _ in range(20):
        time.sleep(0.5)
        found, before = rest_of(process), found
        if found == before:
            break
    return found


def _watched(process: int, run: Run, threads: Sequence[threading.Thread], reference: Reference) -> list[Sample]:
    started, samples = time.monotonic(), []
    pause_s = max(0.5, run.seconds / _N_SAMPLES)
    while any(thread.is_alive() for thread in threads):
        time.sleep(pause_s)
        times = run.times_ms()
        p50, p99 = (np.percentile(times, [50, 99]).round(3).tolist()) if times.size else (None, None)
        pss, rss = _memory(process)
        at_s = time.monotonic() - started
        samples.append(Sample(round(at_s, 1), round(pss, 2), round(rss, 2), p50, p99, reference.p50_ms()))
    return samples


def verdicts(found: Mapping[str, object]) -> dict[str, bool]:
    """What is asked for, and whether it holds."""
    at_rest = found["at_rest"]
    assert isinstance(at_rest, list)
    is_as_fast = float(str(found["latency_ratio"])) <= _MOST_LATENCY
    return {
        "every answer as expected": not found["unexpected"],
        f"memory slope at most {_MOST_SLOPE:.0%}": float(str(found["memory_slope"])) <= _MOST_SLOPE,
        "descriptors and threads equal": at_rest[0] == at_rest[1],
        f"p50 by its reference, of the last third at most {_MOST_LATENCY:g} of the first": is_as_fast,
    }


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Memory and latency over time."""
    import matplotlib  # noqa: PLC0415 - only whoever wants a picture needs it

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, (above, below) = pyplot.subplots(2, sharex=True, figsize=(9, 6), layout="constrained")
    at = [sample.at_s / 60 for sample in samples]
    above.plot(at, [sample.rss_mb for sample in samples], label="RSS")
    above.plot(at, [sample.pss_mb for sample in samples], label="PSS")
    below.plot(at, [sample.p50_ms for sample in samples], label="p50 of single records")
    below.plot(at, [sample.p99_ms for sample in samples], label="p99")
    below.plot(at, [sample.reference_ms for sample in samples], label="p50 of a service that does nothing else")
    above.set(ylabel="MB", ylim=(0, None))
    below.set(ylabel="ms", xlabel="minutes", yscale="log")
    above.legend()
    below.legend()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None, results: Path = RESULTS, picture: Path = _PICTURE) -> int:
    """Prints the verdicts; 1 where one does not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--reloads", type=int, default=1_000)
    asked = parser.parse_args(arguments)
    found = measure(asked.minutes, asked.requests, asked.reloads)
    samples = [Sample(**sample) for sample in found["samples"]]  # type: ignore[attr-defined]
    draw(samples, picture)
    held = verdicts(found)
    rows = [(bar, "yes" if holds else "NO") for bar, holds in held.items()]
    figures = [(name, json.dumps(found[name])) for name in ("memory_slope", "latency_ratio", "at_rest", "unexpected")]
    first, last = samples[0], samples[-1]
    figures.append(("RSS, first and last, MB", f"{first.rss_mb:g}, {last.rss_mb:g}"))
    figures.append(("PSS, first and last, MB", f"{first.pss_mb:g}, {last.pss_mb:g}"))
    figures.append(("requests", f"{sum(found['requests'].values()):,}"))  # type: ignore[attr-defined]
    body = f"{markdown_table(['asked for', 'holds'], rows)}\n\n{markdown_table(['figure', ''], figures)}"
    print(body)
    options = f"--minutes {asked.minutes:g} --requests {asked.requests} --reloads {asked.reloads}"
    command = f"python -m benchmarks.soak {options}"
    write_report("soak", "Soak", command, {**found, "verdicts": held}, body, results)
    return 0 if all(held.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
