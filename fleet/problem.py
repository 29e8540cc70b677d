"""Errors over HTTP: `application/problem+json` (RFC 9457), with what, why and fix.

Below `/v2` the same object has the member `errors` that OCI clients read.
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from edgeml.errors import (
    DeviceError,
    EdgemlError,
    GateFailed,
    ReleaseError,
    RemoteError,
    TrustError,
    UserError,
)

_STATUS: tuple[tuple[type[EdgemlError], int], ...] = (
    (TrustError, 403),
    (RemoteError, 400),
    (ReleaseError, 400),
    (GateFailed, 409),
    (DeviceError, 507),
    (UserError, 422),
)


class NotFound(UserError):  # noqa: N818 -- an HTTP status more than a fault
    """There is no such thing."""


class Conflict(UserError):  # noqa: N818 -- likewise
    """It cannot be done as things stand."""


class Forbidden(TrustError):  # noqa: N818 -- likewise
    """The caller is known, and may not do this."""


class Changed(UserError):  # noqa: N818 -- likewise
    """It is not any more what the client has read."""


class TooMany(RemoteError):  # noqa: N818 -- likewise
    """There are as many of it as there may be; it can be had in a moment."""


class TooOften(RemoteError):  # noqa: N818 -- likewise
    """Somebody asks more often than they may; `wait_s` says when they may again."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = max(1, math.ceil(wait_s))
        super().__init__(
            "You ask too often.",
            why="Each address, user and token may ask so often, and no more.",
            fix=f"Ask again in {self.wait_s} s.",
        )


class Unauthorized(TrustError):  # noqa: N818 -- likewise
    """Credentials are missing or wrong; `challenge` is the header to answer with."""

    def __init__(self, what: str, *, challenge: str, why: str = "", fix: str = "") -> None:
        super().__init__(what, why=why, fix=fix)
        self.challenge = challenge


def status_of(error: EdgemlError) -> int:
    """The HTTP status that says whose fault it is."""
    own = (
        (NotFound, 404),
        (Conflict, 409),
        (Changed, 412),
        (TooMany, 503),
        (TooOften, 429),
        (Unauthorized, 401),
    )
    for kind, status in (*own, *_STATUS):
        if isinstance(error, kind):
            return status
    return 500


def problem(
    status: int,
    title: str,
    detail: str = "",
    *,
    code: str = "",
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> JSONResponse:
    """A problem as a response; `code` adds the list that OCI clients read."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail or title,
        **members,
    }
    if code:
        body["errors"] = [{"code": code, "message": title, "detail": detail}]
    return JSONResponse(
        body, status, media_type="application/problem+json", headers=dict(headers or {})
    )


def of_error(error: EdgemlError, code: str = "") -> JSONResponse:
    """An error as a response."""
    headers = {}
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = error.challenge
    if isinstance(error, TooOften):
        headers["Retry-After"] = str(error.wait_s)
    return problem(
        status_of(error),
        error.what,
        str(error),
        code=code,
        headers=headers,
        what=error.what,
        why=error.why,
        fix=error.fix,
        kind=_kind(error),
    )


async def on_edgeml_error(_request: Request, error: Exception) -> JSONResponse:
    """Handler for `EdgemlError`."""
    assert isinstance(error, EdgemlError)
    return of_error(error)


async def on_http_error(_request: Request, error: Exception) -> JSONResponse:
    """Handler for the framework's own errors (no such route, method not allowed)."""
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    return problem(error.status_code, title, str(error.detail), headers=error.headers)


async def on_unholdable(_request: Request, _error: Exception) -> JSONResponse:
    """Handler for a value that no column holds (NUL, a number too large), or nested too deeply."""
    what = "The request has a value that cannot be kept."
    why = "It has a character or a number that a database does not hold, or is nested too deeply."
    return problem(422, what, why, what=what, why=why, fix="", kind="UserError")


async def on_crash(_request: Request, _error: Exception) -> JSONResponse:
    """Handler for what nobody foresaw: told without its traceback, which the server logs."""
    return problem(500, "The fleet met a fault of its own.", "Its log has the details.")


def _kind(error: EdgemlError) -> str:
    """The name of the design's error class: clients raise the same one."""
    names = [c.__name__ for c in type(error).__mro__ if c.__module__ == EdgemlError.__module__]
    return names[0]
