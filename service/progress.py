"""How far a stream has come: told by whoever answers it, seen by whoever cuts those that do not go on."""

from starlette.types import Scope

NAME = "progress"  # in the state of a request's scope


class Progress:
    """A count of steps, a line that came or answers that were sent; of one connection."""

    def __init__(self) -> None:
        self.n_steps = 0

    def step(self) -> None:
        """Says that it goes on."""
        self.n_steps += 1


def progress_of(scope: Scope) -> Progress:
    """That of the request's connection; one that nobody looks at where nobody cuts connections."""
    found = scope.get("state", {}).get(NAME)
    return found if isinstance(found, Progress) else Progress()
