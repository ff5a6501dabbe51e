import asyncio
from pathlib import Path

from benchmarks.stopping import alone, behind_a_balancer, request_of
from tests.bundles import write_tiny_bundle
from tests.deploy.programs import program


def test_a_process_that_stops_under_load_answers_all_that_it_accepted(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    seen = asyncio.run(alone(tmp_path, request_of(tmp_path, "pumps"), n_stops=1, drain_s=0.3))
    assert seen.n_failed == 0
    assert seen.answers[200] > 50


def test_no_request_fails_when_a_replica_behind_a_balancer_stops(tmp_path: Path) -> None:
    haproxy = program("haproxy", "apt-get install haproxy")
    write_tiny_bundle(tmp_path)
    seen = asyncio.run(behind_a_balancer(haproxy, tmp_path, request_of(tmp_path, "pumps"), n_stops=1))
    assert seen.n_failed == 0
    assert seen.answers[200] > 50
