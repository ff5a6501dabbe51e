"""Short requests that arrive together share one run of the graph; long ones go to another thread."""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import msgspec
import numpy as np
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from nelbo.characters import count
from nelbo.results import results
from nelbo.scoring import CHUNK, Scored
from nelbo.verdict import State
from service.answer import Tally, Wish, answer, body_of, head, wish_of
from service.capacity import Capacity
from service.deadline import Deadline, exceeded
from service.decoding import is_json
from service.forms import wants_json
from service.live import Live
from service.metrics import Metrics
from service.problems import JSON_HEADERS, Answer, ProblemError
from service.request import ScoreRequest

# A longer body is decoded and scored in a thread, so that health and short requests do not wait for it.
LARGE_BODY_BYTES = 64 * 1024
# Turns of the event loop, some 20 µs each, that a request waits while others come, and how many are worth no more
# waiting: a record among 32 costs the graph hardly more than one among 64. With 32 clients a request took 72 µs of
# processor time instead of 88 so (2026-11-25).
_MOST_TURNS, _ENOUGH = 32, 32
_SHORT_BODY_BYTES = 1024  # chosen: so few records are not worth counting
# Who waits for longer has often left. Records that are flagged and explained take hundreds of times as long as others,
# so how many are scored meanwhile is told by the last large bodies, of at least so many records. Chosen
_LONGEST_WAIT_S, _SHARE_OF_LAST, _TELLING = 0.7, 0.3, 100
_RETRY_AFTER_S = 1  # a full queue is scored in less; chosen


T = TypeVar("T")
Work = Callable[[Deadline], tuple[Answer, Tally]]


class _Waiting(msgspec.Struct, frozen=True):
    """A request that waits for its turn: for its answer, or for work that makes it in the worker."""

    request: ScoreRequest
    n_records: int
    since: float
    answered: "asyncio.Future[Answer | Work]"


class Batching:
    """Answers scoring requests, each as `answer` would, but many at a time.

    What arrives in one turn of the event loop, and in those that follow it without a pause, is scored together, up to
    256 records in a turn: nobody waits for a clock. What takes long goes to a worker thread instead: a large body,
    other forms than JSON, explanations, and a body with something wrong, of which each record must be looked at.
    There it is dropped once its deadline is over or its client has left.

    The event loop's thread alone calls it, and counts what was scored.

    Args:
        live: the loaded models.
        metrics: to count by.
        max_records: of one request.
        capacity: how many records may wait; while there are more, or as many as take long, requests are refused.
        deadline_s: from a request to its answer.
        clock: seconds from any start, for the stages.
    """

    def __init__(
        self,
        live: Live,
        metrics: Metrics,
        max_records: int,
        capacity: Capacity,
        deadline_s: float,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._live, self._metrics, self._clock = live, metrics, clock
        self._max_records, self._max_queued = max_records, capacity.max_queued_records
        self._deadline_s = deadline_s
        self._waiting: deque[_Waiting] = deque()  # at the next turn of the event loop
        self._n_queued = self._n_long = 0  # records; those of the second wait for the worker
        self._s_a_record = 0.0  # that large bodies take, of late
        self.worker = ThreadPoolExecutor(capacity.workers, thread_name_prefix="score")

    @property
    def n_queued(self) -> int:
        """Records that wait, or are being scored."""
        return self._n_queued

    def close(self) -> None:
        """Waits for the worker."""
        self.worker.shutdown()

    async def score(self, request: ScoreRequest, receive: Receive) -> Answer:
        """The answer to a request.

        Args:
            request: its body whole.
            receive: tells when its client has left.

        Raises:
            ClientDisconnect: it has.
            ProblemError: the deadline is over.
        """
        loop, since = asyncio.get_running_loop(), self._clock()
        n = self._n_records(request)
        is_long = len(request.body) > LARGE_BODY_BYTES or not (is_json(request) and wants_json(request))
        if self._is_full(is_long=is_long):
            return self._refuse()
        self._take(n, is_long=is_long)
        try:
            if is_long:
                return await self._answer_long(request, since, receive)
            waiting = _Waiting(request, n, since, loop.create_future())
            self._waiting.append(waiting)
            if len(self._waiting) == 1:
                loop.call_soon(self._wait, 0, 0)
            found = await waiting.answered
            if isinstance(found, Answer):
                return found
            explained, tally = await self._in_worker(found, since, receive)
            self.count(tally)
            return explained
        finally:
            self._take(-n, is_long=is_long)

    async def run(
        self, work: Callable[[], tuple[Answer, Tally]], n_records: int, receive: Receive, *, is_long: bool
    ) -> Answer:
        """The answer that other work makes, by itself but of the same queue.

        Args:
            work: scores the records of one request.
            n_records: about how many these are.
            receive: as for `score`, and likewise what is raised.
            is_long: the event loop must not wait for it.
        """
        since = self._clock()
        if self._is_full(is_long=is_long):
            return self._refuse()
        self._take(n_records, is_long=is_long)
        try:
            found, tally = await self._in_worker(lambda _: work(), since, receive) if is_long else work()
            self.count(tally)
            return found
        finally:
            self._take(-n_records, is_long=is_long)

    def expect_room(self) -> None:
        """Returns where a stream may begin.

        Raises:
            ProblemError: too many records wait.
        """
        if self._is_full(is_long=True):
            raise self._full()

    async def of_stream(self, work: Callable[[Deadline], T], n_records: int) -> T:
        """What the worker makes of some records of a stream. They wait as others do, but what has begun goes on."""
        deadline = Deadline(math.inf, self._clock)
        self._take(n_records, is_long=True)
        try:
            return await asyncio.get_running_loop().run_in_executor(self.worker, work, deadline)
        finally:
            deadline.end()
            self._take(-n_records, is_long=True)

    def _take(self, n_records: int, *, is_long: bool) -> None:
        self._n_queued += n_records
        if is_long:
            self._n_long += n_records

    def _is_full(self, *, is_long: bool) -> bool:
        # Not "with its records": then a large request would find no room as long as small ones come.
        if self._n_queued >= self._max_queued:
            return True
        return is_long and self._n_long * self._s_a_record >= _LONGEST_WAIT_S

    def _n_records(self, request: ScoreRequest) -> int:
        """About how many records a body holds, before it is decoded: by its commas, in any form that is text.

        At least one for each kilobyte, so that few and huge ones do not fill the memory; and one where there is little
        to count.
        """
        n_bytes = len(request.body)
        if n_bytes < _SHORT_BODY_BYTES:
            return 1
        state = self._live.state(request.name)
        n_columns = 1 if state is None or state.scorer is None else len(state.scorer.schema.columns)
        return 1 + max(count(request.body, b",") // n_columns, n_bytes // 1024)

    def _refuse(self) -> Answer:
        error = self._full()
        self._metrics.reject(error.kind)
        return error.answer

    def _full(self) -> ProblemError:
        detail = f"{self._n_queued} records wait to be scored, as many as may; try again later"
        return ProblemError("queue-full", detail, headers={"retry-after": str(_RETRY_AFTER_S)})

    # --- in the worker --------------------------------------------------------------------------------

    async def _in_worker(self, work: Callable[[Deadline], T], since: float, receive: Receive) -> T:
        """What the worker makes, as long as somebody waits for it; errors as for `score`."""
        deadline = Deadline(since + self._deadline_s, self._clock)

        def still_wanted() -> T:
            deadline.check()
            return work(deadline)

        made = asyncio.get_running_loop().run_in_executor(self.worker, still_wanted)
        left = asyncio.ensure_future(_until_left(receive))
        try:
            await asyncio.wait((made, left), timeout=deadline.remaining_s, return_when=asyncio.FIRST_COMPLETED)
            if made.done():
                return made.result()
            raise ClientDisconnect if left.done() else exceeded()
        finally:
            deadline.end()
            made.cancel()
            left.cancel()

    async def _answer_long(self, request: ScoreRequest, since: float, receive: Receive) -> Answer:
        found, tally, seconds = await self._in_worker(partial(self._timed, request), since, receive)
        self.count(tally)
        n = sum(tally.n_records)
        if n >= _TELLING:
            self._s_a_record += _SHARE_OF_LAST * (seconds / n - self._s_a_record)
        return found

    def _timed(self, request: ScoreRequest, deadline: Deadline) -> tuple[Answer, Tally, float]:
        started = self._clock()
        found, tally = self._alone(request, deadline)
        return found, tally, self._clock() - started

    def _alone(self, request: ScoreRequest, deadline: Deadline) -> tuple[Answer, Tally]:
        return answer(self._live, request, max_records=self._max_records, go_on=deadline.check)

    # --- on the event loop ----------------------------------------------------------------------------

    def _wait(self, n_before: int, n_turns: int) -> None:
        """Answers what waits, once a turn brings no more, or enough wait.

        While many clients ask at once, each answer lets the next request come: to score the first of them alone would
        take half as long as to score all.

        Args:
            n_before: how many waited a turn ago.
            n_turns: how long the first has waited.
        """
        n = len(self._waiting)
        if n_before < n < _ENOUGH and n_turns < _MOST_TURNS:
            asyncio.get_running_loop().call_soon(self._wait, n, n_turns + 1)
        else:
            self._flush()

    def _flush(self) -> None:
        """Answers what waits, up to so many records that other events do not wait long."""
        groups: dict[tuple[str, str], list[_Waiting]] = {}
        n, oldest = 0, self._clock() - self._deadline_s
        while self._waiting and n < CHUNK:
            waiting = self._waiting.popleft()
            if waiting.since < oldest:
                _fail(waiting, exceeded())
                continue
            groups.setdefault((waiting.request.name, waiting.request.query), []).append(waiting)
            n += waiting.n_records
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._flush)
        for group in groups.values():
            try:
                self._answer(group)
            except Exception as error:  # not another group's failure, nor all of this one's; the edge logs it
                waits = [waiting for waiting in group if not waiting.answered.done()]
                if len(group) > 1:
                    self._answer_alone(waits)
                else:
                    _fail(group[0], error)

    def _answer(self, group: Sequence[_Waiting]) -> None:
        """Answers requests that ask the same of the same model."""
        tally = Tally()
        try:
            wish = wish_of(self._live, group[0].request, tally)
        except ProblemError as error:
            tally.rejected = error.kind
            for waiting in group:
                self.count(tally)
                _give(waiting, error.answer)
            return
        if wish.fdr is not None or wish.query.explain == "all":
            self._answer_alone(group)
        else:
            self._answer_together(wish, group, tally)

    def _answer_alone(self, group: Sequence[_Waiting]) -> None:
        for waiting in group:
            _give(waiting, partial(self._alone, waiting.request))

    def _answer_together(self, wish: Wish, group: Sequence[_Waiting], tally: Tally) -> None:
        clock = self._clock
        marks = [clock()] * 2
        scorer, bodies = wish.scorer, [waiting.request.body for waiting in group]
        batch, sizes = scorer.decoder.together(bodies, self._max_records)
        marks.append(clock())
        self._answer_alone([waiting for waiting, size in zip(group, sizes, strict=True) if size < 0])
        if max(sizes) < 0:
            return
        scored = scorer.score(batch, wish.decision)
        marks.append(clock())
        found = results(scorer, scored, "none")
        marks.append(clock())
        state = self._live.watches.verdict(scorer).state
        shared = head(scorer, wish.decision, (), state)
        is_odd = scored.flagged if wish.query.explain == "flagged" else np.zeros_like(scored.flagged)
        any_is_odd, start, n_later = bool(is_odd.any()), 0, 0
        for waiting, size in zip(group, sizes, strict=True):
            if size < 0:
                continue
            rows = slice(start, start + size)
            start = rows.stop
            if any_is_odd and is_odd[rows].any():
                n_later += 1
                _give(waiting, partial(_explained, wish, scored.part(rows), state, clock))
                continue
            own = (
                head(scorer, wish.decision, scored.segments[rows].tolist(), state) if wish.decision.segments else shared
            )
            _give(waiting, Answer(200, JSON_HEADERS, body_of(own, found[rows])))
        marks.append(clock())
        tally.count(scorer, scored, marks, [size for size in sizes if size >= 0], n_later)
        self.count(tally)

    def count(self, tally: Tally) -> None:
        """Counts what was scored; on the event loop's thread."""
        self._metrics.count(tally)
        if tally.scored is not None:
            self._live.watches.add(*tally.scored)


def _explained(
    wish: Wish, scored: Scored, state: State | None, clock: Callable[[], float], deadline: Deadline
) -> tuple[Answer, Tally]:
    """The answer to a request whose records are scored and counted already, and what remains to be counted."""
    started = clock()
    found = results(wish.scorer, scored, wish.query.explain, deadline.check)
    explained = clock()
    body = body_of(head(wish.scorer, wish.decision, scored.segments.tolist(), state), found)
    return Answer(200, JSON_HEADERS, body), Tally(
        stages={"explain": (explained - started, 1), "encode": (clock() - explained, 1)}
    )


def _give(waiting: _Waiting, found: Answer | Work) -> None:
    if not waiting.answered.done():  # whoever asked may have gone
        waiting.answered.set_result(found)


def _fail(waiting: _Waiting, error: BaseException) -> None:
    if not waiting.answered.done():
        waiting.answered.set_exception(error)


async def _until_left(receive: Receive) -> None:
    """Returns when a client whose request is whole has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
