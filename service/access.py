"""Who may do what: decided here and nowhere else, for the lane and for the declared routes alike.

A route declares the scope that it needs by `openapi_extra={"x-scope": …}`. One that declares none needs `admin`.
"""

import logging
import re
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal, cast

from starlette.routing import BaseRoute, Match
from starlette.types import Scope as Asgi

from service import logs
from service.body import Headers, declared_length
from service.keyring import Holder, KeyRing
from service.keys import SCOPES, Scope
from service.problems import Kind, ProblemError

# `any`: whatever key; what a path that does not exist needs, so that only who has one learns that.
Need = Scope | Literal["open", "any"]
DOCUMENT_PATH = "/openapi.json"
_SCHEME = b"bearer "
_CLOSE_BYTES = 64 * 1024  # of a body that nobody will read: what is longer ends the connection; chosen
_LOG_S = 10.0  # between two log lines about refusals, however many there are; chosen
_LOCAL_HOST = re.compile(rb"(\[[^\]]*\]|[0-9.]+|[^.]*|([^.]+\.)+localhost)(:[0-9]*)?", re.IGNORECASE)
_HOW = "nelbo keys new --scope score --keys FILE makes one, and the setting NELBO_KEYS names the file"


class Access:
    """The rules of one service.

    Args:
        ring: the keys; None where there is no file of them.
        is_open: whether nobody needs a key.
        is_local: whether it is open for being reached from this machine alone.
        clock: seconds from any start.
    """

    def __init__(
        self,
        ring: KeyRing | None,
        *,
        is_open: bool,
        is_local: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ring, self.is_open, self.is_local, self._clock = ring, is_open, is_local, clock
        self._n_refused, self._logged_at = 0, -_LOG_S

    def announce(self, *, is_loopback: bool) -> None:
        """Logs what a start should make somebody think of."""
        if self.is_open and not is_loopback:
            logs.event("open: whoever reaches the address may do everything", level=logging.WARNING)
        if not self.is_open and not self._ring:
            logs.event("no key yet: only health is answered", level=logging.WARNING, next_step=_HOW)

    def expect(self, headers: Headers, need: Need) -> None:
        """Nothing, where a request may go on; its body is not looked at.

        Args:
            headers: of the request.
            need: of its route.

        Raises:
            ProblemError: it has no key, a wrong one, or one without the scope.
        """
        if need == "open":
            return
        if self.is_open:
            if self.is_local:
                _expect_own_host(headers)
            _expect_no_page(headers, need)
            return
        holder = self._holder(headers)
        if holder is None:
            raise self._unknown(headers)
        if need not in holder.meets:
            self._log("wrong-scope", holder.id)
            found = ", ".join(scope for scope in SCOPES if scope in holder.scopes)
            raise ProblemError(
                "wrong-scope",
                f"expected a key with the scope {need}, got one with {found}",
                headers=_refusal(f'error="insufficient_scope", scope="{need}"', headers),
            )

    def may(self, headers: Headers, need: Need) -> bool:
        """Whether a request could do something; nothing is counted or logged."""
        if self.is_open or need == "open":
            return True
        holder = self._holder(headers)
        return holder is not None and need in holder.meets

    def _holder(self, headers: Headers) -> Holder | None:
        key = _key(headers)
        return None if key is None or self._ring is None else self._ring.holder(key)

    def _unknown(self, headers: Headers) -> ProblemError:
        kind: Kind
        if not self._ring:
            kind, detail = "no-key", f"expected a key, and there are none yet: {_HOW}"
        elif _key(headers) is None:
            kind, detail = "no-key", "expected the header Authorization: Bearer KEY, got none of that form"
        else:
            kind, detail = "wrong-key", "expected a key of this service, got one that is unknown, revoked or expired"
        self._log(kind, None)
        return ProblemError(
            kind, detail, headers=_refusal("" if kind == "no-key" else 'error="invalid_token"', headers)
        )

    def _log(self, kind: Kind, key: str | None) -> None:
        """A line now and then, whoever asks how often; of a key only the id, and only of one that is known."""
        self._n_refused += 1
        now = self._clock()
        if now - self._logged_at >= _LOG_S:
            logs.event("access refused", level=logging.WARNING, reason=kind, key=key, n=self._n_refused)
            self._n_refused, self._logged_at = 0, now


def need_of(routes: Iterable[BaseRoute], scope: Asgi) -> tuple[Need, str | None]:
    """What a request needs, and the template of the route that will answer it; None where none will.

    Args:
        routes: of the app, in its order.
        scope: of the request, as ASGI has it.
    """
    for route in routes:
        if route.matches(scope)[0] == Match.FULL:
            return declared_need(route), getattr(route, "path", None)
    return "any", None


def declared_need(route: BaseRoute) -> Need:
    """What a route declares that it needs."""
    if getattr(route, "path", None) == DOCUMENT_PATH:  # FastAPI declares it
        return "read"
    need = (getattr(route, "openapi_extra", None) or {}).get("x-scope")
    return cast(Need, need) if need in (*SCOPES, "open") else "admin"


def declaring(need: Need) -> dict[str, Any]:
    """What a route hands to `openapi_extra`."""
    return {"x-scope": need}


def _expect_own_host(headers: Headers) -> None:
    """Where only this machine asks, nobody asks for a name of the public network.

    A page could: one whose name was made to lead here (DNS rebinding), and a browser would let it read the answers.
    """
    if _LOCAL_HOST.fullmatch(headers.get(b"host", b"")) is None:
        raise ProblemError(
            "wrong-host",
            "expected the header Host to have an address, or a name without a dot, got another name; "
            "with keys, or NELBO_ACCESS=open, any will do",
        )


def _expect_no_page(headers: Headers, need: Need) -> None:
    """Where nobody needs a key, a page in a browser of this machine could manage the models, unseen.

    No page may, of whatever origin: one whose name was made to lead here is of the same origin.
    """
    if need == "admin" and (b"origin" in headers or headers.get(b"sec-fetch-site", b"none") != b"none"):
        raise ProblemError("wrong-scope", "expected no request of a page in a browser, got one; keys would allow it")


def _key(headers: Headers) -> bytes | None:
    value = headers.get(b"authorization")
    if value is None or value[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return value[len(_SCHEME) :].strip()


def _refusal(why: str, headers: Headers) -> dict[str, str]:
    """The headers of an answer that refuses: a body that is still coming, and long, ends the connection unread."""
    found = {"www-authenticate": 'Bearer realm="nelbo"' + (f", {why}" if why else "")}
    return found | ({"connection": "close"} if _is_long(headers) else {})


def _is_long(headers: Headers) -> bool:
    length = declared_length(headers) if b"content-length" in headers else 0
    return b"transfer-encoding" in headers or length is None or length > _CLOSE_BYTES
