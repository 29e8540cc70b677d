"""Who may use the operator listener: the bearer of the operator's token, or a console session.

A session begins with a one-time link and is a signed cookie; the server remembers none. What a
browser sends on behalf of another site is refused: a change, or a socket, must come from the
listener's own origin.
"""

import hashlib
import hmac
import secrets
import threading
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.keys import hash_of, new_token
from fleet.problem import problem
from fleet.resources import LoginLink
from fleet.services.context import Services

COOKIE = "edgeml_session"
SESSION_S = 12 * 3600.0
LINK_S = 900.0
_MAX_LINKS = 1000
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
_LOGIN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>edgeml</title>
<body style="font-family: sans-serif; max-width: 40em; margin: 4em auto">
<h1>edgeml fleet</h1>
<p>You are not logged in. Get a link that logs you in once:</p>
<pre>edgeml fleet console</pre></body></html>"""


class Access:
    """Makes and checks links and sessions, and checks the operator's token."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._links: dict[str, float] = {}

    def make_link(self) -> LoginLink:
        """A link to the console that logs in once."""
        token, now = new_token(), self._services.now()
        with self._lock:
            self._links = {h: end for h, end in self._links.items() if end > now}
            if len(self._links) >= _MAX_LINKS:
                self._links.clear()
            self._links[hash_of(token)] = now + LINK_S
        return {"url": f"{self._services.console_url}/?token={token}", "expires_at": now + LINK_S}

    def use_link(self, token: str) -> bool:
        """Whether a link's token is good; it is not any more after this."""
        with self._lock:
            end = self._links.pop(hash_of(token), 0.0)
        return end > self._services.now()

    def make_session(self) -> str:
        """The value of a session's cookie."""
        body = f"{int(self._services.now() + SESSION_S)}.{secrets.token_urlsafe(12)}"
        return f"{body}.{self._mac(body)}"

    def is_session(self, value: str) -> bool:
        """Whether a cookie is one of ours and still good."""
        body, _, mac = value.rpartition(".")
        end = body.partition(".")[0]
        genuine = hmac.compare_digest(mac.encode(), self._mac(body).encode())
        return genuine and end.isascii() and end.isdigit() and int(end) > self._services.now()

    def is_operator(self, authorization: str) -> bool:
        """Whether a header `Authorization` carries the operator's token."""
        scheme, _, token = authorization.partition(" ")
        known = self._services.keys.operator_token
        return scheme.lower() == "bearer" and hmac.compare_digest(
            token.strip().encode(), known.encode()
        )

    def actor(self, headers: Headers, method: str, scheme: str) -> str:
        """Who sends a request; empty for nobody that we know."""
        if self.is_operator(headers.get("authorization", "")):
            return "operator"
        if not self.is_session(_cookie(headers.get("cookie", ""))):
            return ""
        changes = method not in _SAFE or scheme == "websocket"
        return "" if changes and not _is_same_origin(headers) else "console"

    def _mac(self, body: str) -> str:
        key = self._services.keys.session_secret
        return hmac.new(key, body.encode(), hashlib.sha256).hexdigest()


class AccessMiddleware:
    """Lets nobody through to any route, page or socket whom `Access` does not know."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        actor = self._access.actor(headers, scope.get("method", "GET"), scope["type"])
        if actor:
            scope.setdefault("state", {})["actor"] = actor
            await self._app(scope, receive, _with_headers(send))
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        await self._stranger(scope)(scope, receive, _with_headers(send))

    def _stranger(self, scope: Scope) -> Response:
        is_page = scope["path"] == "/" and scope["method"] == "GET"
        query = parse_qs(scope["query_string"].decode("latin-1"))
        token = query.get("token", [""])[0]
        if is_page and token and self._access.use_link(token):
            response = RedirectResponse("/", 303)
            response.set_cookie(
                COOKIE,
                self._access.make_session(),
                max_age=int(SESSION_S),
                httponly=True,
                samesite="lax",
                secure=scope["scheme"] == "https",
            )
            return response
        if not scope["path"].startswith(("/api/", "/v2/")):
            return HTMLResponse(_LOGIN_PAGE, 401)
        return problem(
            401,
            "The operator's token is needed.",
            "Send it as Authorization: Bearer; `edgeml fleet up` keeps it in operator.token.",
            code="UNAUTHORIZED",
            headers={"WWW-Authenticate": 'Bearer realm="edgeml"'},
        )


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return sending


def _is_same_origin(headers: Headers) -> bool:
    """Whether a browser says that the request comes from the listener's own pages."""
    origin = headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == headers.get("host", "")


def _cookie(header: str) -> str:
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel else ""
