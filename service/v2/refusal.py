"""What a refused request is told under /v2: the protocol knows an error as one text."""

import msgspec

from service.problems import JSON, Answer, Problem

PATHS = "/v2"
# The protocol's clients expect it of any request that is wrong.
_STATUSES = {422: 400}


class Refusal(msgspec.Struct, frozen=True):
    """The body of every answer that refuses."""

    error: str


def refusal(problem: Answer) -> Answer:
    """A problem in the protocol's form, its headers kept."""
    detail = msgspec.json.decode(problem.body, type=Problem).detail
    status = _STATUSES.get(problem.status, problem.status)
    return Answer(status, problem.headers | {"content-type": JSON}, msgspec.json.encode(Refusal(detail)))


def in_form_of(path: str, problem: Answer) -> Answer:
    """A problem in the form that the clients of a path read."""
    return refusal(problem) if path == PATHS or path.startswith(f"{PATHS}/") else problem
