"""The calls that change which version of a model serves: reload, promote, rollback."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response

from nelbo.errors import NelboError, SchemaChangedError, StoreError
from nelbo.records import shown
from nelbo.store import PREVIOUS
from service import logs
from service.access import declaring
from service.live import CrowdedError, Live, Swap
from service.problems import JSON, MEDIA_TYPE, OF_ERROR, Fault, Kind, ProblemError
from service.query import parameters, refuse
from service.wishes import Wishes

_PATIENCE_S = 60.0  # for a load, and those before it; chosen
_RETRY_AFTER = {"retry-after": "5"}
_PATH = "/v1/models/{name}"
_ERRORS = {
    404: "The store has no such model or version.",
    409: "The version is refused, for itself or for its schema, or the store cannot be changed. What served goes on "
    "serving.",
    422: "The query is wrong.",
    503: "The store cannot be read, or the load has not finished.",
}


class Serving(msgspec.Struct, frozen=True):
    """Which version serves after a call, and what the call has done."""

    name: str
    version: str
    previous: str | None  # that served before the call
    changed: bool  # whether another version serves now
    detail: str  # the same in words
    removed: list[str]  # versions that retention has taken out of the store


class Lifecycle:
    """Changes what serves, one wish at a time, while requests are answered.

    Args:
        live: the models.
        keep_versions: how many of a model's newest versions a promotion leaves in the store; None for all.
        patience_s: how long a caller waits for its answer; the load goes on.
    """

    def __init__(self, live: Live, keep_versions: int | None, patience_s: float = _PATIENCE_S) -> None:
        self._live, self._keep, self._patience_s = live, keep_versions, patience_s
        self._wishes = Wishes()

    async def reload(self, name: str, *, force: bool) -> Serving:
        """Loads the version that is live in the store.

        Raises:
            ProblemError: it does not serve; what served before does.
        """
        work = partial(self._live.reload, name, force=force)
        return await self._done(name, ("reload", name, force), lambda: _serving(work()))

    async def promote(self, name: str, version: str, *, force: bool) -> Serving:
        """Loads a version, makes it live in the store, and forgets old ones.

        Raises:
            ProblemError: as above; the alias is as it was too.
        """
        work = partial(self._promoted, name, version, force=force)
        # Twice to the previous one is there and back again, so that no wish stands for another.
        twin = object() if version == PREVIOUS else None
        return await self._done(name, ("promote", name, version, force, twin), work)

    def _promoted(self, name: str, version: str, *, force: bool) -> Serving:
        swap = self._live.promote(name, version, force=force)
        if self._keep is None:
            return _serving(swap)
        try:
            return _serving(swap, self._live.store.prune(name, self._keep))
        except StoreError as error:  # which does not undo the promotion
            logs.event("old versions not removed", level=logging.WARNING, model=name, reason=str(error))
            found = _serving(swap)
            return msgspec.structs.replace(found, detail=f"{found.detail}; {self._live.said(str(error))}")

    async def _done(self, name: str, key: tuple[object, ...], work: Callable[[], Serving]) -> Serving:
        made = asyncio.wrap_future(self._wishes.make(key, work))
        try:
            # Shielded: others may wait for the same, and who asked may leave.
            found: Serving = await asyncio.wait_for(asyncio.shield(made), self._patience_s)
        except TimeoutError as error:
            detail = f"model '{name}': it goes on; GET /v1/models says what serves"
            raise ProblemError("load-not-finished", detail, headers=_RETRY_AFTER) from error
        except NelboError as error:
            raise self._problem(name, error) from error
        return found

    def _problem(self, name: str, error: NelboError) -> ProblemError:
        state = self._live.state(name)
        version = None if state is None else state.version
        serving = "no version serves" if version is None else f"version '{version}' goes on serving"
        detail = f"{self._live.said(str(error))}; {serving}"
        if isinstance(error, CrowdedError):
            return ProblemError("load-not-finished", detail, headers=_RETRY_AFTER)
        faults = [_fault(*change) for change in error.changes] if isinstance(error, SchemaChangedError) else []
        kind: Kind = OF_ERROR.get(type(error), "load-failed")
        return ProblemError(kind, detail, faults)


def _fault(column: str, before: str, after: str) -> Fault:
    return Fault(f"'{column}': {before} → {after}", expected=before, found=after)


def _serving(swap: Swap, removed: list[str] | None = None) -> Serving:
    if not swap.changed:
        detail = f"version '{swap.version}' was verified anew and goes on serving"
    elif swap.previous is None:
        detail = f"version '{swap.version}' serves"
    else:
        detail = f"version '{swap.version}' serves instead of '{swap.previous}'"
    return Serving(swap.name, swap.version, swap.previous, swap.changed, detail, removed or [])


def add_lifecycle(app: FastAPI, lifecycle: Lifecycle) -> None:
    """Declares the calls.

    Args:
        app: to declare them in.
        lifecycle: what they call.
    """

    @app.post(
        f"{_PATH}/reload",
        summary="Load the live version",
        description="Reads and verifies the version that is live in the store, be it another one or the same. "
        "A model that is new in the store is found too.",
        **_declared(),
    )
    async def reload(name: str, request: Request) -> Response:
        asked = _asked(request)
        return _json(await lifecycle.reload(name, force=_is_forced(asked)))

    @app.post(
        f"{_PATH}/promote",
        summary="Make a version the live one",
        description="Loads and verifies it first; then the alias is written, and it serves.",
        **_declared(_VERSION),
    )
    async def promote(name: str, request: Request) -> Response:
        asked = _asked(request, "version")
        version = asked.get("version") or refuse("version", "a version, or an alias of one", "none")
        return _json(await lifecycle.promote(name, version, force=_is_forced(asked)))

    @app.post(
        f"{_PATH}/rollback",
        summary="Go back to the version before",
        description="Promotes the version that the alias `previous` names; done twice, nothing has changed.",
        **_declared(),
    )
    async def rollback(name: str, request: Request) -> Response:
        asked = _asked(request)
        return _json(await lifecycle.promote(name, PREVIOUS, force=_is_forced(asked)))


_FORCE = {
    "name": "force",
    "in": "query",
    "description": "With `true`, also where the version reads other records than the one that serves.",
    "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
}
_VERSION = {
    "name": "version",
    "in": "query",
    "required": True,
    "description": "The version, or an alias of it.",
    "schema": {"type": "string", "minLength": 1},
}


def _declared(*more: dict[str, Any]) -> dict[str, Any]:
    refused = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    fine = {JSON: {"schema": {"$ref": f"#/components/schemas/{Serving.__name__}"}}}
    responses: dict[int, Any] = {200: {"description": "Fine.", "content": fine}}
    responses |= {status: {"description": text, "content": refused} for status, text in _ERRORS.items()}
    return {
        "tags": ["models"],
        "responses": responses,
        "openapi_extra": declaring("admin") | {"parameters": [*more, _FORCE]},
    }


def _asked(request: Request, *names: str) -> dict[str, str]:
    return parameters(request.scope["query_string"].decode("latin-1"), (*names, "force"))


def _is_forced(asked: dict[str, str]) -> bool:
    text = asked.get("force", "false")
    if text not in ("true", "false"):
        refuse("force", "true or false", shown(text))
    return text == "true"


def _json(found: Serving) -> Response:
    return Response(msgspec.json.encode(found), headers={"content-type": JSON})
