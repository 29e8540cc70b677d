"""A small OpenID provider on a real socket: discovery, keys, code flow with PKCE, signed tokens.

It logs in whoever it is told to be (`person`), and lies on command: `lies` replace claims of its
tokens, `sign_with` and `algorithm` are what it signs with.
"""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey


class OpenIdProvider:
    """See the module; `lies` are claims that replace those of the next tokens."""

    def __init__(self, url: str, client_id: str = "edgeml", client_secret: str = "secret") -> None:
        self.url = url
        self.person: dict[str, Any] = {"sub": "1", "preferred_username": "alice", "groups": []}
        self.lies: dict[str, Any] = {}
        self.sign_with: RSAKey | None = None
        self.algorithm = "RS256"
        self.asked: list[dict[str, str]] = []
        self._client = (client_id, client_secret)
        self._codes: dict[str, dict[str, str]] = {}
        self.keys = [_key()]

    def rotate(self) -> None:
        """Sign with a new key from now on; the old one is offered no more."""
        self.keys = [_key()]

    def metadata(self) -> dict[str, Any]:
        """The discovery document."""
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        return {"issuer": self.url, **{name: f"{self.url}/{name}" for name in names}}

    def authorize(self, query: dict[str, str]) -> str:
        """Where the browser goes after the person has agreed."""
        assert (query["response_type"], query["client_id"]) == ("code", self._client[0])
        assert query["code_challenge_method"] == "S256"
        assert "openid" in query["scope"].split()
        self.asked.append(query)
        code = secrets.token_urlsafe(16)
        self._codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def token(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """The answer of the token endpoint; a code is good once."""
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        known = base64.b64encode(":".join(self._client).encode()).decode()
        if authorization != f"Basic {known}":
            return 401, {"error": "invalid_client"}
        if (
            asked is None
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != form.get("redirect_uri")
        ):
            return 400, {"error": "invalid_grant"}
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": self._client[0],
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.person,
            **self.lies,
        }
        key = self.sign_with or self.keys[0]
        header = {"alg": self.algorithm, "kid": self.keys[0].kid}
        token = jwt.encode(
            header,
            {name: value for name, value in claims.items() if value is not None},
            key,
            algorithms=[self.algorithm],
        )
        return 200, {"access_token": "a", "token_type": "Bearer", "id_token": token}

    def jwks(self) -> dict[str, Any]:
        """Its public keys."""
        return {"keys": [key.as_dict(private=False) for key in self.keys]}


@contextmanager
def openid_provider() -> Iterator[OpenIdProvider]:
    """A provider that answers on loopback within the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    provider = OpenIdProvider(f"http://127.0.0.1:{server.server_address[1]}")
    server.provider = provider  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _key() -> RSAKey:
    return RSAKey.generate_key(2048, {"use": "sig"}, auto_kid=True)


class _Handler(BaseHTTPRequestHandler):
    @property
    def _provider(self) -> OpenIdProvider:
        found = self.server.provider  # type: ignore[attr-defined]
        assert isinstance(found, OpenIdProvider)
        return found

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        match parts.path:
            case "/.well-known/openid-configuration":
                self._json(200, self._provider.metadata())
            case "/jwks_uri":
                self._json(200, self._provider.jwks())
            case "/authorization_endpoint":
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                self.send_response(302)
                self.send_header("Location", self._provider.authorize(query))
                self.end_headers()
            case _:
                self._json(404, {})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        form = {name: values[0] for name, values in parse_qs(text).items()}
        self._json(*self._provider.token(form, self.headers.get("Authorization", "")))

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
