"""Requests of every kind from several clients, and whether the service's counters then say what was sent.

`python -m benchmarks.mixed_traffic` sends them to a service of its own with the model `machines`.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.report import markdown_table, write_report
from benchmarks.serving_process import serving, wait_until_ready
from nelbo.bundle import read_bundle
from nelbo.scoring import Scorer
from nelbo.store import Store
from service.answer import reason_of
from service.metrics import N_RECORDS, P_VALUES, STAGES

Series = tuple[str, frozenset[tuple[str, str]]]
Counts = Counter[Series]

_JSON = {"content-type": "application/json"}
_SCORE = "/v1/models/{name}/score"
# Kinds of requests and their shares; chosen, so that every counter moves. "long" goes to the worker thread.
_SHARES = {
    "valid": 0.55,
    "long": 0.01,
    "partly invalid": 0.12,
    "strict": 0.04,
    "unknown model": 0.08,
    "bad JSON": 0.06,
    "wrong content type": 0.05,
    "wrong shape": 0.03,
    "wrong query": 0.03,
    "unknown path": 0.02,
    "wrong method": 0.01,
}
_REFUSED = {
    "strict": ("wrong-records", 422),
    "unknown model": ("unknown-model", 404),
    "bad JSON": ("not-json", 400),
    "wrong content type": ("unsupported-media-type", 415),
    "wrong shape": ("wrong-body", 422),
    "wrong query": ("wrong-query", 422),
    "unknown path": ("not-found", 404),
    "wrong method": ("method-not-allowed", 405),
}


@dataclass(frozen=True)
class Sent:
    """One request and what it must change.

    Attributes:
        kind: what is special about it.
        method: of HTTP.
        path: with its query.
        headers: besides the usual ones.
        body: as sent.
        status: of the answer.
        counts: by how much each series must grow.
    """

    kind: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    counts: Counts


@dataclass(frozen=True)
class Sample:
    """A record to send, and by how much each series must grow when it is scored."""

    record: dict[str, Any]
    counts: Counts
    is_scored: bool


@dataclass
class Traffic:
    """Makes requests of every kind for one model.

    Args:
        models: the store's folder.
        name: of the model.
        rng: what decides which.
    """

    models: Path
    name: str
    rng: np.random.Generator
    _samples: list[Sample] = field(init=False)

    def __post_init__(self) -> None:
        store = Store(self.models)
        scorer = Scorer(read_bundle(store.live(self.name)))
        golden = [golden.record for golden in scorer.bundle.golden]
        self._samples = [_sample(scorer, self.name, record) for record in [*golden, *_variants(scorer, golden[0])]]
        self._scored = [sample for sample in self._samples if sample.is_scored]
        self._refused = [sample for sample in self._samples if not sample.is_scored]

    def requests(self, n: int) -> list[Sent]:
        """Requests of mixed kinds in any order."""
        kinds = self.rng.choice(list(_SHARES), size=n, p=list(_SHARES.values()))
        return [self._request(str(kind), number) for number, kind in enumerate(kinds)]

    def _request(self, kind: str, number: int) -> Sent:
        method, path, headers, query = "POST", f"/v1/models/{self.name}/score", _JSON, ""
        samples = self._pick(kind)
        body = msgspec.json.encode({"records": [sample.record for sample in samples]})
        match kind:
            case "strict":
                query = "?strict=true"
            case "unknown model":
                path = f"/v1/models/stranger-{number}/score"  # a new name each time: none may become a label
            case "bad JSON":
                body = body[:-1]
            case "wrong content type":
                headers = {"content-type": "text/plain"}
            case "wrong shape":
                body = b'{"record": {}}'
            case "wrong query":
                query = "?rate=2"
            case "unknown path":
                path = f"/wp-admin/{number}"
            case "wrong method":
                method, body = "DELETE", b""
        status = _REFUSED[kind][1] if kind in _REFUSED else 200
        return Sent(kind, method, path + query, headers, body, status, _counts(kind, method, samples))

    def _pick(self, kind: str) -> list[Sample]:
        n = 1200 if kind == "long" else int(self.rng.integers(1, 12))
        picked = [self._scored[i] for i in self.rng.integers(len(self._scored), size=n)]
        if kind in ("partly invalid", "strict"):
            n_refused = int(self.rng.integers(1, 4))
            picked += [self._refused[i] for i in self.rng.integers(len(self._refused), size=n_refused)]
        return picked


def series(name: str, **labels: str) -> Series:
    """The key of a series."""
    return name, frozenset(labels.items())


def scrape(client: httpx.Client) -> dict[Series, float]:
    """Every series of the service's own; the process's are left out."""
    families = text_string_to_metric_families(client.get("/metrics").raise_for_status().text)
    samples = [sample for family in families for sample in family.samples]
    return {series(s.name, **s.labels): s.value for s in samples if s.name.startswith("nelbo_")}


def send_all(url: str, sent: Sequence[Sent], n_clients: int) -> list[int]:
    """The statuses that come back, in the order of the requests, which the clients share out among themselves."""

    def send_some(part: Sequence[Sent]) -> list[int]:
        with httpx.Client(base_url=url, timeout=60) as client:
            return [client.request(s.method, s.path, headers=s.headers, content=s.body).status_code for s in part]

    with ThreadPoolExecutor(n_clients) as threads:
        parts = list(threads.map(send_some, [sent[i::n_clients] for i in range(n_clients)]))
    statuses = [0] * len(sent)
    for i, part in enumerate(parts):
        statuses[i::n_clients] = part
    return statuses


def is_exact(name: str) -> bool:
    """Whether a series counts something that the sender knows; seconds, gauges and loads are not of that kind."""
    if name == "nelbo_model_loads_total":
        return False
    return name.endswith(("_total", "_count")) or name.startswith(
        ("nelbo_score_p_value_bucket", "nelbo_batch_records_")
    )


def growth(sent: Sequence[Sent]) -> Counts:
    """By how much each counter must grow."""
    found: Counts = Counter()
    for request in sent:
        found.update(request.counts)
    return found


def differences(before: Mapping[Series, float], after: Mapping[Series, float], expected: Counts) -> list[str]:
    """Every counter that did not grow by what was expected, in words; those of the scrapes are not looked at."""
    keys = {key for key in (*before, *after) if is_exact(key[0])} | set(expected)
    grown = {key: after.get(key, 0) - before.get(key, 0) for key in keys if ("route", "/metrics") not in key[1]}
    return sorted(
        f"{name} {dict(labels)}: sent {expected[name, labels]}, counted {n:g}"
        for (name, labels), n in grown.items()
        if n != expected[name, labels]
    )


def _sample(scorer: Scorer, model: str, record: dict[str, Any]) -> Sample:
    batch = scorer.decoder.objects([record])
    if batch.errors:
        reason = reason_of(batch.errors[0])
        invalid = series("nelbo_records_scored_total", model=model, outcome="invalid")
        return Sample(
            record, Counter([invalid, series("nelbo_record_errors_total", model=model, reason=reason)]), False
        )
    scored = scorer.score(batch)
    outcome = "flagged" if scored.flagged[0] else "normal"
    counts = Counter([series("nelbo_records_scored_total", model=model, outcome=outcome)])
    for name, where in (
        ("nelbo_values_missing_total", scored.missing),
        ("nelbo_categories_unseen_total", scored.unseen),
    ):
        fields = [scorer.schema.fields[j].name for j in np.flatnonzero(where[0])]
        counts.update(series(name, model=model, field=field) for field in fields)
    p_value = float(scored.p_values["score"][0])
    counts.update(_observed("nelbo_score_p_value", P_VALUES, p_value, model=model))
    return Sample(record, counts, True)


def _observed(name: str, bounds: Sequence[float], value: float, **labels: str) -> Counts:
    reached = [*(str(bound) for bound in bounds if value <= bound), "+Inf"]
    return Counter([series(f"{name}_count", **labels), *(series(f"{name}_bucket", le=le, **labels) for le in reached)])


def _variants(scorer: Scorer, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Records that are odd, have an unseen category, lack a value or hold one of the wrong type."""
    fields = scorer.schema.fields
    numeric = [column.name for column in fields if column.kind == "numeric"]
    categorical = [column.name for column in fields if column.kind == "categorical"]
    found = [
        record | dict.fromkeys(numeric, 1000000.0),
        {name: value for name, value in record.items() if name != numeric[0]},
        record | {numeric[0]: "a text"},
        record | {"no such field": 1},
    ]
    found += [record | {name: "never seen"} for name in categorical]
    found += [record | {column.name: None} for column in fields if column.nullable]
    return found


def _counts(kind: str, method: str, samples: Sequence[Sample]) -> Counts:
    status = _REFUSED[kind][1] if kind in _REFUSED else 200
    route = "unmatched" if kind == "unknown path" else _SCORE
    counts = Counter([series("nelbo_http_requests_total", route=route, method=method, status=str(status))])
    counts[series("nelbo_http_request_duration_seconds_count", route=route)] += 1
    if kind in _REFUSED:
        counts[series("nelbo_requests_rejected_total", reason=_REFUSED[kind][0])] += 1
        return counts
    for sample in samples:
        counts.update(sample.counts)
    counts.update(series("nelbo_stage_duration_seconds_count", stage=stage) for stage in STAGES)
    counts.update(_observed("nelbo_batch_records", N_RECORDS, len(samples)))
    counts[series("nelbo_batch_records_sum")] += len(samples)
    return counts


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models"))
    parser.add_argument("--name", default="machines")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    sent = Traffic(chosen.models, chosen.name, np.random.default_rng(chosen.seed)).requests(chosen.requests)
    with serving(chosen.models) as service, httpx.Client(base_url=service.url) as client:
        wait_until_ready(service.url)
        time.sleep(0.1)  # so that the last answer of the wait is counted before the first scrape
        before, started = scrape(client), time.perf_counter()
        statuses = send_all(service.url, sent, chosen.clients)
        duration_s, after = time.perf_counter() - started, scrape(client)
    return _report(chosen, sent, statuses, before, after, duration_s)


def _report(
    chosen: argparse.Namespace,
    sent: Sequence[Sent],
    statuses: Sequence[int],
    before: Mapping[Series, float],
    after: Mapping[Series, float],
    duration_s: float,
) -> int:
    wrong = differences(before, after, growth(sent))
    n_strange = sum(request.status != status for request, status in zip(sent, statuses, strict=True))
    kinds = Counter(request.kind for request in sent)
    found = {
        "requests": dict(kinds),
        "clients": chosen.clients,
        "duration_s": round(duration_s, 1),
        "answers_of_another_status": n_strange,
        "counters_compared": sum(is_exact(name) for name, _ in after),
        "counters_wrong": wrong,
        "series_before": len(before),
        "series_after": len(after),
    }
    rows = [(kind, n) for kind, n in kinds.most_common()]
    body = (
        f"{len(sent):,} requests from {chosen.clients} clients in {duration_s:.1f} s. "
        f"{found['counters_compared']} counters and buckets compared with what was sent, {len(wrong)} differ; "
        f"{n_strange} answers had another status than expected. "
        f"{len(before)} series before the first request, {len(after)} after the last.\n\n"
    ) + markdown_table(["requests", "sent"], rows)
    page = write_report("mixed_traffic", "Counters under mixed traffic", "make bench-mixed-traffic", found, body)
    sys.stdout.write(page.read_text(encoding="utf-8"))
    sys.stderr.write("".join(f"{line}\n" for line in wrong))
    return 1 if wrong or n_strange or len(after) - len(before) > 40 else 0


if __name__ == "__main__":
    sys.exit(_main())
