"""Credentials for registries, as Docker's clients give them: Basic, or a token that is asked for.

A registry answers 401 with a challenge. `Basic` is answered with name and password, `Bearer`
by asking the token service that the challenge names, over TLS, and going on with its token until
that expires. Only the registry's own challenge is answered: an object store or a mirror that it
redirects to learns nothing.

Source: the token authentication of the CNCF distribution project.
"""

import base64
import re
import time
from collections.abc import Callable, Generator
from urllib.parse import urlencode

import httpx

from cloud_sync.address import MAX_BODY

TOKEN_S = 60.0  # how long a token holds whose answer does not say
_EARLY_S = 10.0
_MAX_TOKEN_BYTES = 64 << 10
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class RegistryAuth(httpx.Auth):
    """See the module.

    Args:
        registry: the address whose challenges are answered, `https://registry.example`.
        username: empty where anybody may ask for a token.
        password: it, or a token in its place.
        monotonic: the clock of the tokens, in seconds.
    """

    requires_response_body = False

    def __init__(
        self,
        registry: str,
        username: str = "",
        password: str = "",
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        url = httpx.URL(registry)
        self._own = (url.scheme, url.netloc)
        plain = f"{username}:{password}".encode()
        self._basic = f"Basic {base64.b64encode(plain).decode()}" if username else ""
        self._monotonic = monotonic
        self._uses_basic = False
        self._tokens: dict[str, tuple[str, float]] = {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send the request, with what the registry wanted the last time or wants now."""
        if not self._is_own(request.url):
            yield request
            return
        scope = _scope(request)
        given = self._known(scope)
        if given:
            request.headers["Authorization"] = given
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED or not self._is_own(response.url):
            return
        kind, challenge = _challenge(response)
        if kind == "basic" and self._basic and given != self._basic:
            self._uses_basic = True
            request.headers["Authorization"] = self._basic
            yield request
        elif kind == "bearer" and "realm" in challenge:
            answer = yield self._asking(challenge, request)
            token = self._token(answer, scope)
            if token:
                request.headers["Authorization"] = token
                yield request

    def _is_own(self, url: httpx.URL) -> bool:
        return (url.scheme, url.netloc) == self._own

    def _known(self, scope: str) -> str:
        token, until = self._tokens.get(scope, ("", 0.0))
        if token and self._monotonic() < until:
            return token
        return self._basic if self._uses_basic else ""

    def _asking(self, challenge: dict[str, str], about: httpx.Request) -> httpx.Request:
        query = {str(name): challenge[name] for name in ("service", "scope") if name in challenge}
        realm = challenge["realm"]
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._basic:
            headers["Authorization"] = self._basic
        joint = "&" if "?" in realm else "?"
        # With the timeouts of the request that waits for it.
        extensions = {**about.extensions, MAX_BODY: _MAX_TOKEN_BYTES}
        url = f"{realm}{joint}{urlencode(query)}"
        return httpx.Request("GET", url, headers=headers, extensions=extensions)

    def _token(self, answer: httpx.Response, scope: str) -> str:
        if not answer.is_success:
            return ""
        try:
            answer.read()
            said = answer.json()
            token = str(said.get("token") or said.get("access_token") or "")
            lasts = float(said.get("expires_in") or TOKEN_S)
        except (ValueError, AttributeError, TypeError):
            return ""
        if not token.isascii() or not token.isprintable() or not token:
            return ""
        self._tokens[scope] = (f"Bearer {token}", self._monotonic() + lasts - _EARLY_S)
        return f"Bearer {token}"


def _scope(request: httpx.Request) -> str:
    """What a token is good for: a repository, to be read or written."""
    parts = re.split("/(?:blobs|manifests|referrers|tags)/", request.url.path, maxsplit=1)
    return f"{parts[0]} {'pull' if request.method in {'GET', 'HEAD'} else 'push'}"


def _challenge(response: httpx.Response) -> tuple[str, dict[str, str]]:
    kind, _, rest = response.headers.get("www-authenticate", "").partition(" ")
    return kind.lower(), {name.lower(): value for name, value in _PARAMETER.findall(rest)}
