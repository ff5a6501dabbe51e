import json
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
import yaml

from benchmarks.mixed_traffic import Sent, Traffic, differences, growth, send_all, series
from benchmarks.panels import DASHBOARD, Panel, read_panels
from benchmarks.serving_process import serving, wait_until_ready
from benchmarks.watching import RULES, Prometheus, watching
from service.keys import new_key, write_keys
from tests.bundles import normal_records, write_tiny_bundle
from tests.deploy.programs import program

PANELS = [panel for panel in read_panels() if panel.kind != "row"]
QUERIES = [(panel.title, query) for panel in PANELS for query in panel.queries]
RECORDS = [
    rule["record"]
    for group in yaml.safe_load((RULES / "recording.yml").read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
]
N_IDLE, N_BUSY, N_LARGE = 4, 2, 5000  # connections that send nothing, those that do, and records of their requests
METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"
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
        serving(models, RELOAD_S=1) as service,
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


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has seen large requests, idle connections, a damaged version and a broken file of keys."""
    prometheus = program("prometheus", "apt-get install prometheus")
    models, folder = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("troubled")
    write_tiny_bundle(models)
    text, key = new_key(["score"], "sender", datetime.now(UTC), None)
    write_keys(folder / "keys.json", [key])
    damaged = write_tiny_bundle(folder / "damaged", version="20260402T081500Z-0bad")
    (damaged / "score.onnx").write_bytes(b"no graph")
    (folder / "prometheus").mkdir()
    with (
        serving(models, KEYS=folder / "keys.json", METRICS_OPEN="true", RELOAD_S=1) as service,
        ExitStack() as connections,
        ThreadPoolExecutor(N_BUSY) as threads,
    ):
        wait_until_ready(service.url)
        with watching(service.url, folder / "prometheus", prometheus) as watcher:
            _wait_for_scrapes(watcher, 1)  # so that the load of the start is counted before
            damaged.rename(models / "pumps" / damaged.name)  # in one step, or a look could come between two of them
            (folder / "keys.json").write_text("{")
            address = ("127.0.0.1", httpx.URL(service.url).port)
            for _ in range(N_IDLE):
                connections.enter_context(socket.create_connection(address))
            until = time.monotonic() + 6.0
            list(threads.map(_send_large_requests, [service.url] * N_BUSY, [text] * N_BUSY, [until] * N_BUSY))
            _wait_for_scrapes(watcher, 1)
            yield watcher


def _send_large_requests(url: str, key: str, until: float) -> None:
    body = msgspec.json.encode({"records": normal_records(100) * (N_LARGE // 100)})
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        while time.monotonic() < until:
            assert client.post("/v1/models/pumps/score", content=body).status_code == 200


def _shown(prometheus: Prometheus, title: str) -> dict[str, float]:
    """What a panel with one query shows last, by its legend."""
    ((query,),) = [panel.queries for panel in PANELS if panel.title == title]
    found = prometheus.query(query.filled(**VARIABLES))
    return {query.name(sample["metric"]): float(sample["value"][1]) for sample in found}


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


def test_the_queue_shows_records_of_the_requests_that_wait(troubled: Prometheus) -> None:
    (most,) = _shown(troubled, "Records in the queue").values()
    assert 0 < most <= N_BUSY * N_LARGE


def test_idle_and_busy_connections_are_shown_and_the_one_of_prometheus(troubled: Prometheus) -> None:
    assert list(_shown(troubled, "Connections").values()) == [N_IDLE + N_BUSY + 1]


def test_a_damaged_version_is_shown_as_one_load_that_failed(troubled: Prometheus) -> None:
    found = _shown(troubled, "Loads of the last hour by outcome")
    # `increase` reckons from the first and last scrape to an interval beyond them, so that 1 is not quite 1.
    assert {outcome: round(n) for outcome, n in found.items()} == {
        "loaded": 0,
        "unchanged": 0,
        "failed": 1,
        "schema-changed": 0,
    }


def test_a_refused_version_leaves_one_in_memory(troubled: Prometheus) -> None:
    assert _shown(troubled, "Versions in memory") == {"pumps": 1}


def test_a_store_that_is_looked_at_each_second_was_seconds_ago(troubled: Prometheus) -> None:
    (seconds,) = _shown(troubled, "Since the last look at the store").values()
    assert 0 <= seconds < 5  # a second each for pause, sweep and scrape, and two for a busy machine


def test_a_broken_file_of_keys_is_shown_as_no(troubled: Prometheus) -> None:
    (panel,) = [panel for panel in PANELS if panel.title == "Keys as in their file"]
    (value,) = _shown(troubled, panel.title).values()
    (mapping,) = panel.raw["fieldConfig"]["defaults"]["mappings"]
    assert mapping["options"][f"{value:g}"]["text"] == "no"


def test_each_metric_is_on_the_dashboard_or_in_a_rule() -> None:
    documented = set(re.findall(r"^\| `(nelbo_\w+)` ", METRICS.read_text(encoding="utf-8"), re.MULTILINE))
    rules = "".join((RULES / name).read_text(encoding="utf-8") for name in ("recording.yml", "alerts.yml"))
    used = re.findall(r"nelbo_\w+", " ".join([rules, *(query.expression for _, query in QUERIES)]))
    assert documented - {re.sub("_(bucket|sum|count)$", "", name) for name in used} == set()


@pytest.mark.parametrize("title", ["Since the last look at the store", "Age of the calibration"])
def test_a_stat_turns_red_where_its_alert_fires(title: str) -> None:
    (panel,) = [panel for panel in PANELS if panel.title == title]
    (metric,) = re.findall(r"nelbo_\w+", panel.queries[0].expression)
    groups = yaml.safe_load((RULES / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    (bound,) = [rule["expr"].split(">")[1] for group in groups for rule in group["rules"] if metric in rule["expr"]]
    (red,) = [s["value"] for s in panel.raw["fieldConfig"]["defaults"]["thresholds"]["steps"] if s["color"] == "red"]
    assert red == np.prod([float(factor) for factor in bound.split("*")])


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.title)
def test_each_panel_says_what_healthy_looks_like(panel: Panel) -> None:
    assert panel.description.startswith("Healthy: ")
    assert panel.unit
    assert panel.raw["datasource"]["uid"] == "${datasource}"


def test_the_dashboard_has_its_rows_and_its_panels_fill_them_without_covering_another() -> None:
    rows = [panel.title for panel in read_panels() if panel.kind == "row"]
    assert rows == ["Traffic", "Decisions", "p-values", "Latency", "Data quality", "Drift", "Models", "Process"]
    cells = [
        (x, y)
        for p in read_panels()
        for x in range(p.position["x"], p.position["x"] + p.position["w"])
        for y in range(p.position["y"], p.position["y"] + p.position["h"])
    ]
    assert len(cells) == len(set(cells))
    height = max(y for _, y in cells) + 1
    assert set(cells) == {(x, y) for x in range(24) for y in range(height)}


def test_panels_are_read_in_the_order_in_which_they_lie_and_have_ids_of_their_own() -> None:
    panels = read_panels()
    places = [(panel.position["y"], panel.position["x"]) for panel in panels]
    assert places == sorted(places)
    assert len({panel.raw["id"] for panel in panels}) == len(panels)


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
