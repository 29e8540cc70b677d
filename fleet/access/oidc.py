"""Login with an OpenID provider: the authorization code flow with PKCE, state and nonce.

Authlib makes and checks the protocol's messages, joserfc (of the same hand) the signatures; httpx
carries them. Which claims of a person mean which role and scope says a TOML file:

    issuer = "https://id.example.org/realms/plant"
    client_id = "edgeml"
    client_secret_file = "oidc.secret"
    name_claim = "preferred_username"

    [[rules]]                 # the first rule that fits decides; without one, nobody gets in
    claim = "groups"
    value = "edge-operators"
    role = "operator"
    scope = "site=north"
"""

import hmac
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
from authlib.common.security import generate_token
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.client import OAuth2Client
from authlib.oauth2.rfc6749.parameters import (
    parse_authorization_code_response,
    prepare_token_request,
)
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from cloud_sync.address import http_client, require_private
from edgeml.errors import RemoteError, TrustError, UserError
from edgeml.toml_lines import line_of
from fleet.roles import Role
from fleet.rollouts.selector import parse_selector

FLOW_S = 600.0
_LEEWAY_S = 120
_KEYS_EVERY_S = 60.0
_TIMEOUT = httpx.Timeout(15.0, connect=5.0)
# No `none`, and nothing symmetric: the client's secret vouches for nobody.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "ES256", "ES384", "ES512", "EdDSA"]


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whoever has a value in a claim gets a role and a scope."""

    claim: str
    value: str
    role: Role
    scope: str = ""


class OidcConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to reach a provider, and what its claims mean here."""

    issuer: str
    client_id: str
    rules: tuple[Rule, ...]
    client_secret_file: str = ""
    name_claim: str = "preferred_username"
    scopes: tuple[str, ...] = ("openid", "profile", "email")


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a login between its two ends, in a cookie of the browser."""

    state: str
    nonce: str
    verifier: str
    ends_at: float


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a provider vouches for, and what they may do here."""

    name: str
    issuer: str
    subject: str
    role: Role
    scope: str


def read_config(path: Path) -> OidcConfig:
    """Read a provider's TOML file.

    Raises:
        UserError: it cannot be read, or a key or value is wrong; names the line.
    """
    what = f"The OpenID file {path} cannot be used."
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(what, why=f"{error}.", fix="Name another one with --oidc.") from None
    try:
        found = msgspec.toml.decode(text, type=OidcConfig)
        urls = urlsplit(found.issuer)
        require_private(urls.scheme, urls.hostname or "", of="OpenID provider")
        for number, rule in enumerate(found.rules):
            _check_scope(text, number, rule, what)
    except msgspec.DecodeError as error:
        raise UserError(what, why=f"{error}.", fix="docs/access.md has an example.") from None
    return found


def _check_scope(text: str, number: int, rule: Rule, what: str) -> None:
    try:
        parse_selector(rule.scope)
    except UserError as error:
        line = line_of(text, ("rules", number, "scope"))
        raise UserError(what, why=f"Line {line}: {error.what}", fix=error.fix) from None


def person_of(config: OidcConfig, claims: Mapping[str, Any]) -> Person:
    """What the claims of a person mean: the first rule that fits decides.

    Raises:
        TrustError: no rule fits, or there is no name.
    """
    name = _claim(claims, config.name_claim)
    if not isinstance(name, str) or not name:
        raise _refused(f"The provider sends no {config.name_claim}.")
    for rule in config.rules:
        found = _claim(claims, rule.claim)
        if rule.value in (found if isinstance(found, list) else [found]):
            return Person(
                name=name,
                issuer=config.issuer,
                subject=str(claims["sub"]),
                role=rule.role,
                scope=rule.scope,
            )
    raise _refused(f"No rule of the fleet lets {name[:64]} in.")


class Provider:
    """An OpenID provider, as the fleet talks to it; safe to use from several threads.

    Args:
        config: where it is, and what its claims mean.
        secret: of the fleet as its client; empty for a public client.
        key: seals what the browser carries from one end of a login to the other.
        now: Unix seconds.
    """

    def __init__(self, config: OidcConfig, secret: str, key: bytes, now: Any = time.time) -> None:
        self.config = config
        self._secret = secret
        self._key = key
        self._now = now
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] = {}
        self._keys: KeySet | None = None
        self._keys_at = 0.0

    def begin(self, redirect_uri: str) -> tuple[str, str]:
        """Begin a login: where the browser goes, and the cookie that it brings back."""
        flow = Flow(
            state=generate_token(),
            nonce=generate_token(),
            verifier=generate_token(64),
            ends_at=self._now() + FLOW_S,
        )
        client = OAuth2Client(
            None,
            client_id=self.config.client_id,
            scope=" ".join(self.config.scopes),
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
        )
        url, _ = client.create_authorization_url(
            self._endpoint("authorization_endpoint"),
            state=flow.state,
            nonce=flow.nonce,
            code_verifier=flow.verifier,
        )
        return str(url), self._seal(flow)

    def finish(self, url: str, redirect_uri: str, cookie: str) -> Person:
        """Finish a login: whom the provider vouches for.

        Args:
            url: where the provider sent the browser, with the code.
            redirect_uri: the same as at the beginning.
            cookie: what `begin` gave the browser.

        Raises:
            TrustError: it is not the login that was begun, or what the provider says is not its
                own, or no rule lets the person in.
            RemoteError: the provider cannot be reached.
        """
        flow = self._open(cookie)
        try:
            code = parse_authorization_code_response(url, state=flow.state)["code"]
        except OAuth2Error as error:
            raise _refused(f"{error.error}: {error.description}".rstrip(": ") + ".") from None
        claims = self._claims(self._tokens(code, redirect_uri, flow), flow)
        return person_of(self.config, claims)

    def _tokens(self, code: str, redirect_uri: str, flow: Flow) -> dict[str, Any]:
        body = prepare_token_request(
            "authorization_code", code=code, redirect_uri=redirect_uri, code_verifier=flow.verifier
        )
        method = "client_secret_basic" if self._secret else "none"
        url, headers, body = ClientAuth(self.config.client_id, self._secret, method).prepare(
            "POST",
            self._endpoint("token_endpoint"),
            {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            body,
        )
        found = self._fetch("POST", url, headers=headers, content=body)
        if "id_token" not in found:
            raise _refused(f"The provider gave no identity: {found.get('error', 'no id_token')}.")
        return found

    def _claims(self, tokens: Mapping[str, Any], flow: Flow) -> Mapping[str, Any]:
        """The claims of an ID token that is genuine, for us, of this login, and not over."""
        try:
            token = self._decoded(str(tokens["id_token"]))
            claims = CodeIDToken(
                token.claims,
                token.header,
                options={
                    "iss": {"essential": True, "value": self.config.issuer},
                    "aud": {"essential": True, "value": self.config.client_id},
                },
                params={
                    "nonce": flow.nonce,
                    "client_id": self.config.client_id,
                    "access_token": tokens.get("access_token"),
                },
            )
            claims.validate(now=int(self._now()), leeway=_LEEWAY_S)
        except (JoseError, ValueError, TypeError) as error:
            raise _refused(f"The provider's ID token does not hold: {error}.") from None
        return dict(claims)

    def _decoded(self, token: str) -> jwt.Token:
        """A token whose signature is the provider's; new keys are asked for when one is unknown."""
        try:
            return jwt.decode(token, self._key_set(fresh=False), algorithms=_ALGORITHMS)
        except (JoseError, ValueError):
            return jwt.decode(token, self._key_set(fresh=True), algorithms=_ALGORITHMS)

    def _key_set(self, *, fresh: bool) -> KeySet:
        with self._lock:
            now = time.monotonic()
            is_due = fresh and now - self._keys_at > _KEYS_EVERY_S
            known = self._keys
        if known is None or is_due:
            known = KeySet.import_key_set(self._fetch("GET", self._endpoint("jwks_uri")))  # type: ignore[arg-type]
            with self._lock:
                self._keys, self._keys_at = known, now
        return known

    def _endpoint(self, name: str) -> str:
        with self._lock:
            known = self._metadata
        if not known:
            url = f"{self.config.issuer.rstrip('/')}/.well-known/openid-configuration"
            known = self._fetch("GET", url)
            if known.get("issuer") != self.config.issuer:
                raise _refused(f"{url} speaks for {str(known.get('issuer'))[:200]!r}.")
            with self._lock:
                self._metadata = known
        found = urlsplit(str(known.get(name, "")))
        require_private(found.scheme, found.hostname or "", of="OpenID provider")
        return found.geturl()

    def _fetch(self, method: str, url: str, **request: Any) -> dict[str, Any]:
        parts = urlsplit(url)
        try:
            base = f"{parts.scheme}://{parts.netloc}"
            with http_client(base, None, _TIMEOUT, of="OpenID provider") as client:
                found = client.request(method, url, **request).json()
        except (httpx.HTTPError, ValueError) as error:
            raise RemoteError(
                f"The OpenID provider {self.config.issuer} cannot be used.",
                why=f"{type(error).__name__}: {error}.",
                fix="Log in with a password, or with a link: edgeml fleet console",
            ) from error
        if not isinstance(found, dict):
            raise RemoteError(f"The OpenID provider answered {url} with no object.")
        return found

    def _seal(self, flow: Flow) -> str:
        body = msgspec.json.encode(flow).hex()
        return f"{body}.{self._mac(body)}"

    def _open(self, cookie: str) -> Flow:
        body, _, mac = cookie.partition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(body).encode()):
            raise _refused("The browser brought nothing of a login that was begun here.")
        flow = msgspec.json.decode(bytes.fromhex(body), type=Flow)
        if flow.ends_at < self._now():
            raise _refused("It took too long.")
        return flow

    def _mac(self, body: str) -> str:
        return hmac.new(self._key, f"oidc {body}".encode(), "sha256").hexdigest()


def open_provider(path: Path, key: bytes, now: Any = time.time) -> Provider:
    """The provider that a TOML file describes; its secret lies in a file beside it.

    Raises:
        UserError: one of the files cannot be used.
    """
    config, secret = read_config(path), ""
    if config.client_secret_file:
        file = path.parent / config.client_secret_file
        try:
            secret = file.read_text().strip()
        except OSError as error:
            raise UserError(
                f"The client's secret {file} cannot be read.", why=f"{error.strerror}."
            ) from None
    return Provider(config, secret, key, now)


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """A claim by its name, or by its path: `realm_access.roles`; no address that is only said."""
    if name == "email" and claims.get("email_verified") is not True:
        return None
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _refused(why: str) -> TrustError:
    return TrustError(
        "The login with the OpenID provider was refused.",
        why=why,
        fix="Begin again at the console, or ask whoever keeps the fleet's OpenID file.",
    )
