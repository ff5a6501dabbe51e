"""Scrapes of the metrics that come at once."""

import asyncio

import pytest

from service.scrapes import OPENMETRICS, PLAIN, Exposition, Scrapes


class Counted:
    """Makes expositions, numbered."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, form: str) -> Exposition:
        self.made.append(form)
        return str(len(self.made)).encode(), form


def test_all_that_wait_share_one() -> None:
    expose = Counted()
    taken = Scrapes(expose)

    async def crowd() -> list[Exposition]:
        return await asyncio.gather(*(taken.take("") for _ in range(100)))

    assert set(asyncio.run(crowd())) == {(b"1", PLAIN)}
    assert expose.made == [PLAIN]


def test_none_is_older_than_its_question() -> None:
    taken = Scrapes(Counted())

    async def in_turn() -> list[bytes]:
        return [(await taken.take(""))[0] for _ in range(3)]

    assert asyncio.run(in_turn()) == [b"1", b"2", b"3"]


def test_of_what_clients_wish_two_forms_are_made_at_most() -> None:
    expose = Counted()
    taken = Scrapes(expose)
    wishes = [f"application/openmetrics-text;version=1.0.{i}" for i in range(50)] + [f"text/{i}" for i in range(50)]

    async def crowd() -> list[Exposition]:
        return await asyncio.gather(*(taken.take(wish) for wish in wishes))

    assert [form for _, form in asyncio.run(crowd())] == [OPENMETRICS] * 50 + [PLAIN] * 50
    assert sorted(expose.made) == [OPENMETRICS, PLAIN]


def test_a_tenth_of_the_time_is_spent_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now, pauses = [1000.0], []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(round(seconds, 6))
        now[0] += seconds
        await sleep(0)

    def expose(form: str) -> Exposition:
        now[0] += 0.5
        return b"", form

    monkeypatch.setattr("service.scrapes.time.monotonic", lambda: now[0])
    monkeypatch.setattr("service.scrapes.asyncio.sleep", pause)
    taken = Scrapes(expose)

    async def in_turn() -> None:
        await taken.take("")
        await taken.take("")
        now[0] += 100.0
        await taken.take("")

    asyncio.run(in_turn())
    assert pauses == [0.0, 4.5, 0.0]


def test_one_that_fails_fails_for_those_who_wait_for_it_alone() -> None:
    failures = [MemoryError()]

    def expose(form: str) -> Exposition:
        if failures:
            raise failures.pop()
        return b"well", form

    taken = Scrapes(expose)

    async def crowd() -> list[object]:
        found = await asyncio.gather(*(taken.take("") for _ in range(3)), return_exceptions=True)
        return [*map(type, found), await taken.take("")]

    assert asyncio.run(crowd()) == [MemoryError] * 3 + [(b"well", PLAIN)]


def test_who_leaves_takes_it_from_nobody() -> None:
    taken = Scrapes(Counted())

    async def crowd() -> Exposition:
        leaving = asyncio.ensure_future(taken.take(""))
        staying = asyncio.ensure_future(taken.take(""))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(crowd()) == (b"1", PLAIN)
