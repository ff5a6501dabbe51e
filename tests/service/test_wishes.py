import threading

import pytest

from service.wishes import Wishes


def test_a_wish_is_done_and_its_result_given() -> None:
    assert Wishes().make("a", lambda: 7).result(10) == 7


def test_a_wish_that_fails_fails_for_its_asker_alone() -> None:
    wishes = Wishes()

    def fail() -> None:
        raise ValueError("no")

    failed, fine = wishes.make("a", fail), wishes.make("b", lambda: 1)
    with pytest.raises(ValueError, match="no"):
        failed.result(10)
    assert fine.result(10) == 1


def test_the_same_wish_is_one_while_it_waits_and_another_once_it_has_begun() -> None:
    wishes, done, begun, go = Wishes(), [], threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go.wait(10)
        done.append(1)

    first = wishes.make("a", work)
    assert begun.wait(10)
    later = [wishes.make("a", work) for _ in range(100)]
    go.set()
    for made in (first, *later):
        made.result(10)
    assert (len(done), len(set(map(id, later)))) == (2, 1)


def test_no_thread_stays_when_all_is_done() -> None:
    wishes = Wishes()
    for i in range(20):
        wishes.make(i, lambda: None).result(10)
    for thread in threading.enumerate():
        if thread.name == "wishes":
            thread.join(10)
    assert "wishes" not in [thread.name for thread in threading.enumerate()]
