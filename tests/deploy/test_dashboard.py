import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml

from benchmarks.mixed_traffic import Sent, Traffic, differences, growth, send_all, series
from benchmarks.panels import DASHBOARD, Panel, read_panels
from benchmarks.serving_process import serving, wait_until_ready
from benchmarks.watching import RULES, Prometheus, watching
from service.keys import new_key, write_keys
from tests.bundles import write_tiny_bundle
from tests.deploy.programs import program

PANELS = [panel for panel in read_panels() if panel.kind != "row"]
QUERIES = [(panel.title, query) for panel in PANELS for query in panel.queries]
RECORDS = [
    rule["record"]
    for group in yaml.safe_load((RULES / "recording.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
VARIABLES = {"__rate_interval": "10s", "job": "nelbo", "model": ".*"}


@dataclass(frozen=True)
class Watched:
    """A Prometheus that has seen all of some traffic."""

    prometheus: Prometheus
    sent: list[Sent]
    started: float


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Sends requests of every kind for some seconds to a service that a Prometheus scrapes each second."""
    prometheus = program("prometheus", "apt-get install prometheus")
    models = tmp_path_factory.mktemp("models")
    write_tiny_bundle(models)
    traffic, sent = Traffic(models, "pumps", np.random.default_rng(5)), []
    started = time.time()
    with (
        serving(models) as service,
        watching(service.url, tmp_path_factory.mktemp("prometheus"), prometheus) as watcher,
    ):
        wait_until_ready(service.url)
        for _ in range(12):
            until = time.monotonic() + 1.0
            part = traffic.requests(40)
            statuses = send_all(service.url, part, 4)
            assert statuses == [request.status for request in part]
            sent += part
            time.sleep(max(0.0, until - time.monotonic()))
        _wait_for_scrapes(watcher, 3)
        yield Watched(watcher, sent, started)


def _wait_for_scrapes(prometheus: Prometheus, n: int) -> None:
    until = time.time() + n
    for _ in range(100):
        found = prometheus.query('timestamp(up{job="nelbo"})')
        if found and float(found[0]["value"][1]) >= until:
            return
        time.sleep(0.2)
    raise AssertionError("Prometheus stopped scraping")


def test_prometheus_sees_the_service_and_has_loaded_the_rules(watched: Watched) -> None:
    targets = watched.prometheus.api("targets")["activeTargets"]
    assert [(target["labels"]["job"], target["health"]) for target in targets] == [("nelbo", "up")]
    rules = [rule for group in watched.prometheus.api("rules")["groups"] for rule in group["rules"]]
    assert {rule["health"] for rule in rules} == {"ok"}
    assert len([rule for rule in rules if rule["type"] == "alerting"]) == 15


def test_prometheus_scrapes_with_a_key_where_metrics_need_one(tmp_path: Path) -> None:
    prometheus = program("prometheus", "apt-get install prometheus")
    write_tiny_bundle(tmp_path / "models")
    text, key = new_key(["read"], "prometheus", datetime.now(UTC), None)
    write_keys(tmp_path / "keys.json", [key])
    (tmp_path / "key").write_text(text)
    (tmp_path / "prometheus").mkdir()
    with (
        serving(tmp_path / "models", KEYS=tmp_path / "keys.json") as service,
        watching(service.url, tmp_path / "prometheus", prometheus, key=tmp_path / "key") as watcher,
    ):
        _wait_for_scrapes(watcher, 1)
        (target,) = watcher.api("targets")["activeTargets"]
        assert (target["health"], target["lastError"]) == ("up", "")


def test_prometheus_holds_what_was_sent(watched: Watched) -> None:
    samples = watched.prometheus.query('{__name__=~"nelbo_.*", job="nelbo", route!="/healthz/ready"}')
    held = {}
    for sample in samples:
        labels = dict(sample["metric"])
        name = labels.pop("__name__")
        del labels["job"], labels["instance"]
        held[series(name, **labels)] = float(sample["value"][1])
    assert differences({}, held, growth(watched.sent)) == []


@pytest.mark.parametrize("name", RECORDS)
def test_each_recording_rule_gives_numbers(watched: Watched, name: str) -> None:
    found = watched.prometheus.query(name)
    assert found
    assert all(np.isfinite(float(sample["value"][1])) for sample in found)


@pytest.mark.parametrize("index", range(len(QUERIES)), ids=[f"{title}-{i}" for i, (title, _) in enumerate(QUERIES)])
def test_each_query_of_the_dashboard_gives_numbers(watched: Watched, index: int) -> None:
    _, query = QUERIES[index]
    expression = query.filled(**VARIABLES)
    assert "$" not in expression
    found = watched.prometheus.query_range(expression, time.time() - watched.started, 1)
    values = [float(value) for line in found for _, value in line["values"]]
    assert np.isfinite(values).any()
    assert "{{" not in query.name(found[0]["metric"])


def test_the_flagged_share_is_what_the_answers_said(watched: Watched) -> None:
    counts = growth(watched.sent)
    flagged, normal = (
        counts[series("nelbo_records_scored_total", model="pumps", outcome=outcome)]
        for outcome in ("flagged", "normal")
    )
    (found,) = watched.prometheus.query("model:nelbo_records_flagged:share1h")
    assert float(found["value"][1]) == pytest.approx(flagged / (flagged + normal), abs=0.05)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_each_panel_says_what_healthy_looks_like(panel: Panel) -> None:
    assert panel.description.startswith("Healthy: ")
    assert panel.unit
    assert panel.raw["datasource"]["uid"] == "${datasource}"


def test_the_dashboard_has_its_rows_and_no_panel_covers_another() -> None:
    rows = [panel.title for panel in read_panels() if panel.kind == "row"]
    assert rows == ["Traffic", "Decisions", "p-values", "Latency", "Data quality", "Drift", "Models", "Process"]
    cells = [
        (x, y)
        for p in read_panels()
        for x in range(p.position["x"], p.position["x"] + p.position["w"])
        for y in range(p.position["y"], p.position["y"] + p.position["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


def test_the_variables_are_those_that_the_queries_use() -> None:
    variables = [v["name"] for v in json.loads(DASHBOARD.read_text(encoding="utf-8"))["templating"]["list"]]
    assert variables == ["datasource", "job", "model"]


def test_a_query_that_is_none_is_refused(watched: Watched) -> None:
    with pytest.raises(ValueError, match="parse error"):
        watched.prometheus.query("sum by (")


def test_the_provisioned_data_source_and_dashboard_are_the_ones_here() -> None:
    folder = DASHBOARD.parent / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text(encoding="utf-8"))["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    scrape_interval = yaml.safe_load((RULES / "prometheus.yml").read_text(encoding="utf-8"))["global"][
        "scrape_interval"
    ]
    assert source["jsonData"]["timeInterval"] == scrape_interval
