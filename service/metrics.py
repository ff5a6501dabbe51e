"""What Prometheus reads: plain counters, turned into samples when they are scraped.

The event loop's thread owns the counters and nothing else touches them, so they need no lock and cost a few
additions a request. Every label comes from code, a schema or a loaded model, never from a request.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from nelbo.judgement import MIN_RECORDS
from nelbo.verdict import State
from service.answer import Reason, Stage, Tally
from service.live import Live
from service.problems import KINDS

OUTCOMES = ("normal", "flagged", "invalid")
STAGES: tuple[Stage, ...] = get_args(Stage)
REASONS: tuple[Reason, ...] = get_args(Reason)
STATES: tuple[State, ...] = get_args(State)  # in the order of their numbers
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))  # any other is counted as OTHER

# Bounds of histograms. p-values: three a decade from 1e-6 to 1. Seconds: from the fastest stage to what no
# client waits for. Records: powers of four up to beyond the default limit.
P_VALUES = (*(round(step * 10.0**-power, 8) for power in range(6, 0, -1) for step in (1, 2, 5)), 1.0)
SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
N_RECORDS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0)


_PENDING = 64  # arrays of values; chosen


class Histogram:
    """Counts of values by bucket, and their sum.

    Args:
        bounds: upper bounds, inclusive, ascending; a last bucket without a bound is added.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        self._pending: list[NDArray[np.float64]] = []  # values that nobody has asked for yet

    def add(self, value: float, times: int = 1) -> None:
        """Counts a value, so many times."""
        self._counts[bisect_left(self.bounds, value)] += times
        self._sum += times * value

    def add_all(self, values: NDArray[np.float64]) -> None:
        """Counts many values; when someone asks, or they are as many as is worth a call."""
        self._pending.append(values)
        if len(self._pending) >= _PENDING:
            self._settle()

    def _settle(self) -> None:
        values = np.concatenate([np.empty(0), *self._pending])
        self._pending = []
        places = np.searchsorted(self.bounds, values, side="left")
        for place, count in enumerate(np.bincount(places, minlength=len(self._counts)).tolist()):
            self._counts[place] += count
        self._sum += float(values.sum())

    def samples(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative counts by upper bound, and the sum, as prometheus_client takes them."""
        self._settle()
        names = [*map(str, self.bounds), "+Inf"]
        return list(zip(names, np.cumsum(self._counts).tolist(), strict=True)), self._sum


class ModelCounts:
    """What is counted for one model."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.errors: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self.missing: Counter[str] = Counter()
        self.unseen: Counter[str] = Counter()
        self.p_values = Histogram(P_VALUES)


class Metrics(Collector):
    """The counters of one app, with a registry of their own.

    Args:
        live: the models, read when scraped.
        clock: seconds since 1970, for the age of a calibration.
        are_keys_current: whether the keys are those that their file holds.
    """

    def __init__(
        self,
        live: Live,
        clock: Callable[[], float] = time.time,
        are_keys_current: Callable[[], bool] = lambda: True,
    ) -> None:
        self._live = live
        self._clock = clock
        self._are_keys_current = are_keys_current
        self._models: dict[str, ModelCounts] = {}
        self._stages = {stage: Histogram(SECONDS) for stage in STAGES}
        self._batch_records = Histogram(N_RECORDS)
        self._rejected: Counter[str] = Counter(dict.fromkeys(KINDS, 0))
        self._requests: Counter[tuple[str, str, str]] = Counter()
        self._durations: dict[str, Histogram] = {}
        self._n_queued: Callable[[], int] = int
        self._n_connections: Callable[[], int] = int
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def watch_queue(self, n_queued: Callable[[], int]) -> None:
        """Shows how many records wait, by asking at each scrape."""
        self._n_queued = n_queued

    def watch_connections(self, n_connections: Callable[[], int]) -> None:
        """Shows how many connections are open, by asking at each scrape."""
        self._n_connections = n_connections

    def know_routes(self, routes: Iterable[str]) -> None:
        """Shows the durations of these routes from the first scrape on, so that traffic adds few series."""
        self._durations |= {route: Histogram(SECONDS) for route in routes}

    # --- counting -------------------------------------------------------------------------------

    def count(self, tally: Tally) -> None:
        """Counts a scoring request."""
        if tally.rejected is not None:
            self.reject(tally.rejected)
        for stage, (seconds, n) in tally.stages.items():
            self._stages[stage].add(seconds, n)
        for n in tally.n_records:
            self._batch_records.add(n)
        if tally.model is not None and tally.n_records:
            self._count_records(tally.model, tally)

    def reject(self, reason: str) -> None:
        """Counts a request that was refused, by a kind of problem."""
        self._rejected[reason] += 1

    def count_response(self, route: str, method: str, status: int, seconds: float) -> None:
        """Counts any HTTP response; `route` is a template, never a path."""
        self._requests[route, method if method in METHODS else "OTHER", str(status)] += 1
        if route not in self._durations:
            self._durations[route] = Histogram(SECONDS)
        self._durations[route].add(seconds)

    def _count_records(self, model: str, tally: Tally) -> None:
        counts = self._models.get(model) or self._models.setdefault(model, ModelCounts())
        n_scored = tally.p_values.size
        counts.outcomes["flagged"] += tally.n_flagged
        counts.outcomes["normal"] += n_scored - tally.n_flagged
        counts.p_values.add_all(tally.p_values)
        if tally.errors:
            counts.outcomes["invalid"] += len(tally.errors)
            counts.errors.update(tally.errors)
        if tally.n_missing or tally.n_unseen:
            counts.missing.update(tally.n_missing)
            counts.unseen.update(tally.n_unseen)

    # --- scraping -------------------------------------------------------------------------------

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """The scrape and its content type, in the form that the `Accept` header prefers."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Every sample; called by the registry."""
        for name in self._live.names():
            self._models.setdefault(name, ModelCounts())
        yield from self._of_records()
        yield from self._of_models()
        yield from self._of_requests()

    def describe(self) -> list[Metric]:
        """Nothing: the names are known at the scrape."""
        return []

    def _of_records(self) -> Iterator[Metric]:
        scored = CounterMetricFamily("nelbo_records_scored", "Records by outcome.", labels=["model", "outcome"])
        errors = CounterMetricFamily("nelbo_record_errors", "Records not scored.", labels=["model", "reason"])
        missing = CounterMetricFamily("nelbo_values_missing", "Values left out or null.", labels=["model", "field"])
        unseen = CounterMetricFamily(
            "nelbo_categories_unseen", "Categories that training did not see.", labels=["model", "field"]
        )
        p_values = HistogramMetricFamily("nelbo_score_p_value", "p-values of the score.", labels=["model"])
        for model, counts in sorted(self._models.items()):
            for family, values in ((scored, counts.outcomes), (errors, counts.errors)):
                for label, value in values.items():
                    family.add_metric([model, label], value)
            for family, values in ((missing, counts.missing), (unseen, counts.unseen)):
                for label in self._fields(model):
                    family.add_metric([model, label], values[label])
            p_values.add_metric([model], *counts.p_values.samples())
        batch_records = HistogramMetricFamily(
            "nelbo_batch_records", "Records a scoring request, or a batch of a stream."
        )
        batch_records.add_metric([], *self._batch_records.samples())
        yield from (scored, errors, missing, unseen, p_values, batch_records)

    def _fields(self, model: str) -> list[str]:
        state = self._live.state(model)
        return [field.name for field in state.scorer.schema.fields] if state and state.scorer else []

    def _of_models(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "nelbo_calibration_age_seconds", "Time since the model was calibrated.", labels=["model"]
        )
        info = InfoMetricFamily("nelbo_model", "The version that serves.", labels=["model"])
        rate = GaugeMetricFamily(
            "nelbo_effective_rate", "False-alarm rate where a request names none.", labels=["model"]
        )
        missing = GaugeMetricFamily(
            "nelbo_reference_missing_share",
            "Share of missing values when the model was fitted.",
            labels=["model", "field"],
        )
        success = GaugeMetricFamily("nelbo_model_load_success", "1 where the last load succeeded.", labels=["model"])
        loaded = GaugeMetricFamily(
            "nelbo_model_last_load_timestamp_seconds", "When a load last succeeded.", labels=["model"]
        )
        loads = CounterMetricFamily("nelbo_model_loads", "Loads, by what came of them.", labels=["model", "outcome"])
        in_memory = GaugeMetricFamily(
            "nelbo_model_versions_in_memory",
            "Versions in memory: what serves, and what is still used.",
            labels=["model"],
        )
        looked = GaugeMetricFamily(
            "nelbo_store_last_look_timestamp_seconds", "When the store was last looked through for changes."
        )
        if (looked_at := self._live.looked_at()) is not None:
            looked.add_metric([], looked_at)
        drifting = GaugeMetricFamily(
            "nelbo_drift_state", "0: records are as in the fit (fresh), 1: drifting, 2: stale.", labels=["model"]
        )
        drift = GaugeMetricFamily(
            "nelbo_drift_statistic",
            "How far a field's values are from those of the fit.",
            labels=["model", "field", "statistic"],
        )
        for name in self._live.names():
            state = self._live.state(name)
            if state is None:
                continue
            success.add_metric([name], float(state.scorer is not None and state.failure is None))
            loaded.add_metric([name], state.loaded_at or 0.0)
            for outcome, n in self._live.n_loads(name).items():
                loads.add_metric([name, outcome], n)
            in_memory.add_metric([name], self._live.n_in_memory(name))
            if state.scorer is not None:
                bundle = state.scorer.bundle
                created = datetime.fromisoformat(bundle.calibration.created).timestamp()
                age.add_metric([name], self._clock() - created)
                info.add_metric([name], {"version": bundle.version, "digest": bundle.digest})
                rate.add_metric([name], state.scorer.decider.decide().effective_rate)
                for field, sketch in bundle.reference.fields.items():
                    missing.add_metric([name, field], sketch.missing / max(bundle.reference.n_records, 1))
                verdict = self._live.watches.refresh(state.scorer)
                drifting.add_metric([name], STATES.index(verdict.state))
                # Of a few records, either is chance alone.
                judged = verdict.judgement.n_records >= MIN_RECORDS
                for of in verdict.judgement.fields:
                    drift.add_metric([name, of.field, "psi"], of.psi if judged else 0.0)
                    drift.add_metric([name, of.field, "js"], of.js if judged else 0.0)
        ready = GaugeMetricFamily("nelbo_ready", "1 where /healthz/ready says so.", float(not self._live.problems()))
        yield from (age, info, rate, missing, success, loaded, loads, in_memory, looked, drifting, drift, ready)

    def _of_requests(self) -> Iterator[Metric]:
        stages = HistogramMetricFamily(
            "nelbo_stage_duration_seconds", "Time a scoring request spends in a stage.", labels=["stage"]
        )
        for stage, histogram in self._stages.items():
            stages.add_metric([stage], *histogram.samples())
        rejected = CounterMetricFamily("nelbo_requests_rejected", "Requests refused, by reason.", labels=["reason"])
        for reason, value in self._rejected.items():
            rejected.add_metric([reason], value)
        requests = CounterMetricFamily("nelbo_http_requests", "HTTP responses.", labels=["route", "method", "status"])
        for labels, value in sorted(self._requests.items()):
            requests.add_metric(list(labels), value)
        durations = HistogramMetricFamily(
            "nelbo_http_request_duration_seconds", "From the request's head to the response's end.", labels=["route"]
        )
        for route, histogram in sorted(self._durations.items()):
            durations.add_metric([route], *histogram.samples())
        queued = GaugeMetricFamily(
            "nelbo_queue_depth", "Records that wait or are being scored.", float(self._n_queued())
        )
        connections = GaugeMetricFamily("nelbo_connections", "Open connections.", float(self._n_connections()))
        keys = GaugeMetricFamily(
            "nelbo_keys_current", "1 where the keys are those that their file holds.", float(self._are_keys_current())
        )
        yield from (stages, rejected, requests, durations, queued, connections, keys)
