from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.mixed_traffic import Sent, Series, Traffic, differences, growth, scrape, send_all
from benchmarks.serving_process import serving, wait_until_ready

Run = tuple[list[Sent], list[int], dict[Series, float], dict[Series, float]]


@pytest.fixture(scope="module")
def run(models: Path) -> Run:
    """1,500 requests of every kind from 8 clients, between two scrapes."""
    sent = Traffic(models, "pumps", np.random.default_rng(3)).requests(1500)
    with serving(models) as service, httpx.Client(base_url=service.url) as client:
        wait_until_ready(service.url)
        before = scrape(client)
        statuses = send_all(service.url, sent, 8)
        return sent, statuses, before, scrape(client)


def test_every_kind_of_request_gets_its_status(run: Run) -> None:
    sent, statuses, _, _ = run
    assert [request.status for request in sent] == statuses
    assert set(statuses) == {200, 400, 404, 405, 415, 422}


def test_every_counter_equals_what_was_sent_by_many_clients_at_once(run: Run) -> None:
    sent, _, before, after = run
    assert differences(before, after, growth(sent)) == []


def test_mixed_traffic_adds_few_series(run: Run) -> None:
    _, _, before, after = run
    assert len(after) - len(before) <= 40
