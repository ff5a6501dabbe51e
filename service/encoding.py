"""Results in the form that a request asks for."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from nelbo.decision import Decision
from nelbo.results import Explain, FaultyResult, Result, decision_answer, model_of, results
from nelbo.scoring import Scored, Scorer
from nelbo.verdict import State
from service.forms import ARROW, CSV, NDJSON

_encoder = msgspec.json.Encoder()


def said_of(form: str, scorer: Scorer, scored: Scored, explain: Explain, go_on: Callable[[], None]) -> Any:
    """What a form says of each record: a table of them where the form is one, else a list; `go_on` as for `results`."""
    if form not in (CSV, ARROW):
        return results(scorer, scored, explain, go_on)
    from nelbo.writing import rows_of  # noqa: PLC0415  # pyarrow: not before somebody asks for a table

    return rows_of(scorer, scored, explain, go_on)


def encoded(form: str, said: Any) -> bytes:
    """What was said, in a form other than JSON, which has a place for the decision too."""
    if form == NDJSON:
        return lines_of(said)
    from nelbo import buffers  # noqa: PLC0415  # as above

    return buffers.csv_of(said) if form == CSV else buffers.arrow_of(said)


def lines_of(found: Sequence[Result | FaultyResult]) -> bytes:
    """JSON lines."""
    return _encoder.encode_lines(found)


def answer_headers(form: str, scorer: Scorer, decision: Decision | None, state: State | None) -> dict[str, str]:
    """What an answer says beside its results, where its body has no place for it.

    Args:
        form: of the answer.
        scorer: of the version that answers.
        decision: that held; None where each window of a stream has one of its own.
        state: of the traffic.
    """
    model = model_of(scorer)
    headers = {"content-type": form, "nelbo-model": f"{model.name}@{model.version}", "nelbo-digest": model.digest}
    if decision is not None:
        stated = decision_answer(scorer, decision)
        headers |= {"nelbo-effective-rate": str(stated.effective_rate), "nelbo-mode": stated.mode}
        if stated.threshold is not None:
            headers["nelbo-threshold"] = str(stated.threshold)
    return headers if state is None else headers | {"nelbo-state": state}
