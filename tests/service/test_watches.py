from datetime import UTC, datetime

import pytest

from nelbo.scoring import Scorer
from service.live import Live
from service.watches import Watches
from tests.bundles import normal_records
from tests.service.conftest import ClientFactory

NOW = datetime(2026, 11, 25, tzinfo=UTC).timestamp()


class Timer:
    """Seconds that pass only when someone looks, or says so."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 0.001
        return self.seconds


@pytest.fixture
def scorer(client_factory: ClientFactory) -> Scorer:
    live: Live = client_factory().service.live
    return live.scorers()["pumps"]


def test_traffic_is_judged_no_oftener_than_its_judgement_takes_time(scorer: Scorer) -> None:
    timer = Timer()
    watches = Watches(lambda: NOW, timer)
    scored = scorer.score(scorer.decoder.objects(normal_records(250, seed=1)))
    watches.add(scorer, scored)
    first = watches.verdict(scorer)
    assert first.judgement.n_records == 250
    watches.add(scorer, scored)
    assert watches.verdict(scorer) is first
    timer.seconds += 1
    watches.add(scorer, scored)
    assert watches.verdict(scorer).judgement.n_records == 500
