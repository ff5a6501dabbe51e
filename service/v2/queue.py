"""Inference requests among the scoring requests that wait."""

from functools import partial

from starlette.types import Receive

from service.batching import LARGE_BODY_BYTES, Batching
from service.live import Live
from service.problems import MEDIA_TYPE, Answer
from service.v2.infer import infer
from service.v2.refusal import refusal
from service.v2.request import InferRequest


async def queued(live: Live, batching: Batching, request: InferRequest, max_records: int, receive: Receive) -> Answer:
    """The answer to an inference request, counted; whatever carries requests calls it.

    Args:
        live: the loaded models.
        batching: whose queue it joins.
        request: the body within the limit on bytes.
        max_records: the limit on records.
        receive: as for `Batching.score`, and likewise what is raised.
    """
    work = partial(infer, live, request, max_records=max_records)
    is_long = len(request.body) > LARGE_BODY_BYTES
    found = await batching.run(work, _n_records(live, request), receive, is_long=is_long)
    return refusal(found) if found.headers["content-type"] == MEDIA_TYPE else found  # the queue may be full


def _n_records(live: Live, request: InferRequest) -> int:
    """About how many records a body holds, before it is decoded: by its bytes, eight a value of JSON, four a binary."""
    state = live.state(request.name)
    n_fields = 1 if state is None or state.scorer is None else max(1, len(state.scorer.schema.fields))
    return 1 + len(request.body) // ((8 if request.header_length is None else 4) * n_fields)
