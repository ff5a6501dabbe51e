"""How long somebody waits for an answer."""

from collections.abc import Callable

from service.problems import ProblemError


class Deadline:
    """Until when an answer is of use to somebody; whoever makes it looks between pieces of work, from any thread.

    Args:
        at: seconds by the clock.
        clock: seconds from any start.
    """

    def __init__(self, at: float, clock: Callable[[], float]) -> None:
        self._at, self._clock = at, clock
        self._is_over = False

    @property
    def remaining_s(self) -> float:
        """Seconds until then, at least 0."""
        return max(0.0, self._at - self._clock())

    def end(self) -> None:
        """Nobody waits any more."""
        self._is_over = True

    def check(self) -> None:
        """Returns while somebody waits.

        Raises:
            ProblemError: nobody does.
        """
        if self._is_over or self._clock() > self._at:
            raise exceeded()


def exceeded() -> ProblemError:
    """What whoever has waited too long is told."""
    detail = "the answer was not ready within the request deadline; send fewer records, explain fewer, or try later"
    return ProblemError("deadline-exceeded", detail, headers={"retry-after": "1"})
