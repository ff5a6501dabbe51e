from pathlib import Path

from benchmarks.openapi.__main__ import run
from benchmarks.serving_process import serving, wait_until_ready


def test_requests_made_from_the_document_are_answered_as_it_declares(models: Path) -> None:
    with serving(models) as service:
        wait_until_ready(service.url)
        found = run(service.url, n_cases=10, seed=0, timeout_s=240)
    assert found.failures == (), found.output[-5_000:]
    assert found.n_operations >= 17
    assert found.n_cases > 500
