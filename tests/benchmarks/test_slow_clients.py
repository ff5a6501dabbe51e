from benchmarks.serving.open_loop import Sent
from benchmarks.slow_clients import Round


def sent(p99_ms: float, n_good: int = 10) -> Sent:
    return Sent(10, 10, {200: 10}, n_good, 0, 1.0, 1.0, p99_ms, p99_ms)


def test_a_round_compares_the_latencies_and_counts_who_failed_and_who_was_kept() -> None:
    found = Round(sent(2.0), sent(3.0, n_good=8), {"drips": [8.1, None], "waits": [9.0, 8.5]})
    assert (found.ratio, found.n_failed, found.n_kept) == (1.5, 2, 1)
