"""The door of the operators' listener: who is let in, and as whom.

Known are the operator's token of the data folder, API tokens and sessions (`fleet.services.
credentials`). A browser's session is a cookie, begun with a password, an OpenID provider or a
one-time link. What a browser sends on behalf of another site is refused: a change, or a socket,
must come from the listener's own origin.
"""

import asyncio
import hmac
import ipaddress
import time
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.access import pages
from fleet.access.oidc import Provider
from fleet.access.rate import Buckets, Rates
from fleet.problem import TooOften, of_error, problem
from fleet.resources import LoginLink
from fleet.services import credentials
from fleet.services.context import Services
from fleet.services.credentials import THE_OWNER, Kind, Principal

COOKIE = "edgeml_session"
SESSION_S = 12 * 3600.0
LINK_S = 900.0
LOGIN_PATHS = frozenset({"/login", "/api/v1/login"})
OPEN = LOGIN_PATHS | {"/login/oidc", "/login/oidc/callback"}
# Where passwords are tried.
GUESSED = LOGIN_PATHS | {"/login/password", "/api/v1/me/password"}
# All that somebody may do whose password was given by another.
UNCHANGED = frozenset(
    {"/login/password", "/logout", "/api/v1/me", "/api/v1/me/password", "/api/v1/logout"}
)
_RECHECK_S = 5.0
_MAX_NAME = 64
_SITE_BITS = 64  # of an IPv6 address: who has one of them has them all
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
_API_HEADERS = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_HSTS = "max-age=31536000"


class Session(NamedTuple):
    """A new session: its secret, and its end in Unix seconds."""

    secret: str
    expires_at: float


class Access:
    """Makes links and sessions, and finds out who somebody is.

    Args:
        services: the fleet.
        rates: how often somebody may ask.
        oidc: the OpenID provider that vouches for people, if there is one.
    """

    def __init__(
        self, services: Services, rates: Rates | None = None, oidc: Provider | None = None
    ) -> None:
        self._services = services
        self.oidc = oidc
        rates = rates or Rates()
        self.logins = Buckets(rates.login)
        self.names = Buckets(rates.user)
        self.requests = Buckets(rates.request)
        self.strangers = Buckets(rates.stranger)

    def make_link(self, principal: Principal = THE_OWNER) -> LoginLink:
        """A link to the console that logs in once, as whoever asks."""
        kind = Kind.LINK
        with self._services.database.write() as session:
            token, row = credentials.issue(self._services, session, kind, principal, LINK_S)
        return {"url": f"{self._services.console_url}/?token={token}", "expires_at": row.expires_at}

    def use_link(self, token: str) -> Principal | None:
        """Whose link a token is of, if it is good; it is not any more after this."""
        return credentials.use_link(self._services, token) if token else None

    def begin(self, principal: Principal) -> Session:
        """Begin a session."""
        kind = Kind.SESSION
        with self._services.database.write() as session:
            secret, row = credentials.issue(self._services, session, kind, principal, SESSION_S)
        return Session(secret, row.expires_at)

    def make_session(self, principal: Principal = THE_OWNER) -> str:
        """The value of a new session's cookie."""
        return self.begin(principal).secret

    def require_login(self, user: str) -> None:
        """Count a try of a user's password.

        Raises:
            TooOften: there were too many of them.
        """
        if wait_s := self.names.wait_s(user[:_MAX_NAME].lower()):
            raise TooOften(wait_s)

    def is_operator(self, authorization: str) -> bool:
        """Whether a header `Authorization` carries the operator's token."""
        known = self._services.keys.operator_token
        return hmac.compare_digest(_bearer(authorization).encode(), known.encode())

    def principal(self, headers: Headers, method: str, scheme: str) -> Principal | None:
        """Who sends a request, or nobody that we know; blocks."""
        authorization = headers.get("authorization", "")
        if self.is_operator(authorization):
            return THE_OWNER
        if token := _bearer(authorization):
            found = credentials.find(self._services, token, Kind.TOKEN, Kind.SESSION)
            if found is not None:
                credentials.note_use(self._services, found)
            return found
        changes = method not in _SAFE or scheme == "websocket"
        if not (cookie := _cookie(headers.get("cookie", ""))) or (
            changes and not is_same_origin(headers)
        ):
            return None
        return credentials.find(self._services, cookie, Kind.SESSION)


class AccessMiddleware:
    """Lets nobody through to any route, page or socket whom `Access` does not know.

    But for the way in (`OPEN`), whose routes look for themselves.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers, method = Headers(scope=scope), scope.get("method", "GET")
        find = self._access.principal
        if self._access.is_operator(headers.get("authorization", "")):
            principal: Principal | None = THE_OWNER
        else:
            principal = await run_in_threadpool(find, headers, method, scope["type"])
        if scope["type"] == "websocket":
            await self._socket(principal, scope, receive, send)
            return
        send = _with_headers(send, scope)
        if principal is None and scope["path"] not in OPEN:
            await (await self._stranger(scope))(scope, receive, send)
            return
        if refusal := self._refusal(principal, scope):
            await refusal(scope, receive, send)
            return
        _state(scope, principal)
        await self._app(scope, receive, send)

    async def _socket(
        self, principal: Principal | None, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Serve a socket for as long as whoever opened it may have it open."""
        if principal is None or principal.must_change:
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        _state(scope, principal)
        pending: asyncio.Future[Message] | None = None
        looked_at = time.monotonic()

        async def receiving() -> Message:
            nonlocal pending, looked_at
            pending = pending or asyncio.ensure_future(receive())
            while True:
                done, _ = await asyncio.wait({pending}, timeout=_RECHECK_S)
                if time.monotonic() - looked_at >= _RECHECK_S:
                    looked_at = time.monotonic()
                    if not await run_in_threadpool(principal.is_good):
                        pending.cancel()
                        await send({"type": "websocket.close", "code": 1008})
                        return {"type": "websocket.disconnect", "code": 1008}
                if done:
                    message, pending = pending.result(), None
                    return message

        await self._app(scope, receiving, send)

    def _refusal(self, principal: Principal | None, scope: Scope) -> Response | None:
        """Why somebody who is let in has to wait, or to change a password first."""
        address, path = _address(scope), scope["path"]
        if path in GUESSED and scope["method"] not in _SAFE:
            wait_s = self._access.logins.wait_s(address)
        elif principal is None:
            wait_s = self._access.strangers.wait_s(address)
        else:
            wait_s = self._access.requests.wait_s(principal.id or principal.actor)
        if wait_s:
            return of_error(TooOften(wait_s), "TOOMANYREQUESTS")
        if principal is None or not principal.must_change or path in UNCHANGED | OPEN:
            return None
        if not path.startswith(("/api/", "/v2/")):
            return pages.change(status=403)
        return problem(
            403,
            "Your password was given by somebody else.",
            "Change it first: edgeml login asks for a new one.",
            what="Your password was given by somebody else.",
            why="Nothing can be done with it but to change it.",
            fix="Run edgeml login, or PUT /api/v1/me/password.",
            kind="TrustError",
            code="DENIED",
        )

    async def _stranger(self, scope: Scope) -> Response:
        if wait_s := self._access.strangers.wait_s(_address(scope)):
            return of_error(TooOften(wait_s), "TOOMANYREQUESTS")
        is_page = scope["path"] == "/" and scope["method"] == "GET"
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if is_page and (token := query.get("token", [""])[0]):
            found = await run_in_threadpool(self._access.use_link, token)
            if found is not None:
                secret = await run_in_threadpool(self._access.make_session, found)
                return with_session(RedirectResponse("/", 303), secret, scope["scheme"])
        if not scope["path"].startswith(("/api/", "/v2/")):
            return pages.login(oidc=self._access.oidc is not None, status=401, back=_asked(scope))
        return problem(
            401,
            "You are not logged in.",
            "Send a token as Authorization: Bearer; edgeml login gets one.",
            code="UNAUTHORIZED",
            headers={"WWW-Authenticate": 'Bearer realm="edgeml"'},
        )


def with_session(response: Response, secret: str, scheme: str) -> Response:
    """A response that begins a browser's session."""
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(SESSION_S),
        httponly=True,
        samesite="lax",
        secure=scheme == "https",
    )
    return response


def without_session(response: Response) -> Response:
    """A response that ends a browser's session."""
    response.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return response


def is_same_origin(headers: Headers) -> bool:
    """Whether a browser says that the request comes from the listener's own pages."""
    origin = headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == headers.get("host", "")


def _state(scope: Scope, principal: Principal | None) -> None:
    state = scope.setdefault("state", {})
    state["principal"], state["actor"] = principal, principal.actor if principal else ""


def _asked(scope: Scope) -> str:
    """The page that was asked for."""
    query = scope["query_string"].decode("latin-1")
    return f"{scope['path']}?{query}" if query else str(scope["path"])


def _address(scope: Scope) -> str:
    """Who is counted as one: an IPv4 address, or an IPv6 network."""
    text = str((scope.get("client") or ("",))[0])
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(found, ipaddress.IPv4Address) or found.ipv4_mapped:
        return str(getattr(found, "ipv4_mapped", None) or found)
    return str(ipaddress.ip_network((found, _SITE_BITS), strict=False))


def _with_headers(send: Send, scope: Scope) -> Send:
    is_api = scope["path"].startswith("/api/")
    names = _HEADERS | (_API_HEADERS if is_api else {})
    if scope["scheme"] == "https":
        names = names | {"Strict-Transport-Security": _HSTS}

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in names.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
