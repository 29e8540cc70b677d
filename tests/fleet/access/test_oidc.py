"""Login with an OpenID provider that is there, over sockets, with a browser's cookies."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc.jwk import OctKey, RSAKey

from edgeml.errors import TrustError, UserError
from fleet.access import Access
from fleet.access.oidc import OidcConfig, Provider, Rule, open_provider, person_of, read_config
from fleet.roles import Role
from fleet.services import Services
from tests.fleet.conftest import Listening, listen, make_services
from tests.sim.openid import OpenIdProvider, openid_provider

CONFIG = """
issuer = "{issuer}"
client_id = "edgeml"
client_secret_file = "oidc.secret"

[[rules]]
claim = "groups"
value = "plant-north"
role = "operator"
scope = "site=north"

[[rules]]
claim = "realm_access.roles"
value = "edge-admin"
role = "admin"
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    with openid_provider() as made:
        yield made


@pytest.fixture(scope="module")
def listening(
    provider: OpenIdProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Listening]:
    folder = tmp_path_factory.mktemp("oidc")
    (folder / "oidc.toml").write_text(CONFIG.format(issuer=provider.url))
    (folder / "oidc.secret").write_text("secret\n")
    services = make_services(folder / "fleet")

    def access(made: Services) -> Access:
        oidc = open_provider(folder / "oidc.toml", made.keys.session_secret)
        return Access(made, oidc=oidc)

    found, end = listen(services, access)
    yield found
    end()
    services.database.close()


@pytest.fixture
def browser(listening: Listening, provider: OpenIdProvider) -> Iterator[httpx.Client]:
    """A browser's cookies; the provider is honest again, and knows alice of the north."""
    provider.person = {"sub": "1", "preferred_username": "alice", "groups": ["x", "plant-north"]}
    provider.lies, provider.sign_with, provider.algorithm = {}, None, "RS256"
    with httpx.Client(base_url=listening.operators, timeout=60.0) as client:
        yield client


def callback(listening: Listening, browser: httpx.Client) -> str:
    """Where the provider sends the browser back, after the person has agreed."""
    begun = browser.get("/login/oidc")
    assert begun.status_code == 303, begun.text
    agreed = httpx.get(begun.headers["location"], timeout=60.0)
    url = str(agreed.headers["location"])
    known = f"{listening.services.console_url}/login/oidc/callback?"
    assert url.startswith(known)
    return "/login/oidc/callback?" + url.removeprefix(known)


def me(browser: httpx.Client) -> Any:
    return browser.get("/api/v1/me").json()


def test_the_provider_says_who_somebody_is_and_the_rules_what_they_may(
    listening: Listening, browser: httpx.Client, provider: OpenIdProvider
) -> None:
    back = browser.get(callback(listening, browser))
    assert (back.status_code, back.headers["location"]) == (303, "/")
    assert (me(browser)["actor"], me(browser)["role"]) == ("alice", "operator")
    assert me(browser)["scope"] == "site=north"
    asked = provider.asked[-1]
    assert len(asked["state"]) >= 20
    assert len(asked["nonce"]) >= 20
    assert "code_verifier" not in asked


def test_a_code_is_good_once(listening: Listening, browser: httpx.Client) -> None:
    url = callback(listening, browser)
    cookies = dict(browser.cookies)
    assert browser.get(url).status_code == 303
    with httpx.Client(base_url=listening.operators, cookies=cookies) as again:
        assert again.get(url).status_code == 403


@pytest.mark.parametrize("part", ["state", "code"])
def test_an_answer_that_was_not_asked_for_is_refused(
    listening: Listening, browser: httpx.Client, part: str
) -> None:
    url = httpx.URL(callback(listening, browser))
    answer = browser.get(url.copy_set_param(part, "another"))
    assert answer.status_code == 403
    assert "edgeml_session" not in browser.cookies


def test_an_answer_in_another_browser_is_refused(
    listening: Listening, browser: httpx.Client
) -> None:
    url = callback(listening, browser)
    with httpx.Client(base_url=listening.operators) as other:
        assert other.get(url).status_code == 403
        other.get("/login/oidc")  # a login of its own begun, and another's answer given it
        assert other.get(url).status_code == 403


@pytest.mark.parametrize(
    "lies",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another"},
        {"aud": ["edgeml", "another"]},
        {"iss": "https://another.example"},
        {"exp": 1_000},
        {"exp": None},
        {"iat": None},
        {"sub": None},
        {"groups": []},
        {"groups": "plant-north-2"},
        {"preferred_username": None},
        {"preferred_username": "operator"},
        {"preferred_username": "a/b"},
    ],
)
def test_a_token_that_does_not_hold_lets_nobody_in(
    listening: Listening, browser: httpx.Client, provider: OpenIdProvider, lies: dict[str, Any]
) -> None:
    provider.lies = lies
    answer = browser.get(callback(listening, browser))
    assert answer.status_code in {401, 403, 422}, lies
    assert "edgeml_session" not in browser.cookies


def test_a_signature_of_another_key_lets_nobody_in(
    listening: Listening, browser: httpx.Client, provider: OpenIdProvider
) -> None:
    provider.sign_with = RSAKey.generate_key(2048)
    assert browser.get(callback(listening, browser)).status_code == 403


def test_the_clients_secret_signs_for_nobody(
    listening: Listening, browser: httpx.Client, provider: OpenIdProvider
) -> None:
    provider.algorithm, provider.sign_with = "HS256", OctKey.import_key("secret" * 8)  # type: ignore[assignment]
    assert browser.get(callback(listening, browser)).status_code == 403


def test_new_keys_of_the_provider_are_found(provider: OpenIdProvider) -> None:
    from fleet.access import oidc

    config = OidcConfig(issuer=provider.url, client_id="edgeml", rules=(_rule(),))
    made = Provider(config, "secret", b"key")
    assert _login(made, provider).name == "alice"
    provider.rotate()
    made._keys_at -= oidc._KEYS_EVERY_S + 1
    assert _login(made, provider).name == "alice"


def test_a_login_takes_no_longer_than_it_may(provider: OpenIdProvider) -> None:
    config = OidcConfig(issuer=provider.url, client_id="edgeml", rules=(_rule(),))
    now = dt.datetime.now(dt.UTC).timestamp()
    made = Provider(config, "secret", b"key", lambda: now)
    _, cookie = made.begin("http://127.0.0.1/back")
    now += 601
    with pytest.raises(TrustError, match="too long"):
        made.finish("http://127.0.0.1/back?code=c&state=s", "http://127.0.0.1/back", cookie)


def test_a_provider_that_is_away_is_told_and_passwords_still_work(
    listening: Listening, browser: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = OidcConfig(issuer="http://127.0.0.1:9", client_id="edgeml", rules=(_rule(),))
    monkeypatch.setattr(listening.access, "oidc", Provider(away, "", b"key"))
    answer = browser.get("/login/oidc")
    assert answer.status_code == 400
    assert "cannot be used" in answer.text
    assert 'name="password"' in answer.text


def test_who_is_in_no_rule_is_refused_with_the_reason() -> None:
    config = OidcConfig(issuer="https://id.example", client_id="edgeml", rules=(_rule(),))
    with pytest.raises(TrustError, match=r"No rule of the fleet lets bob in\."):
        person_of(config, {"sub": "2", "preferred_username": "bob", "groups": ["others"]})


@pytest.mark.parametrize("said", [{}, {"email_verified": False}, {"email_verified": "true"}])
def test_an_address_that_is_only_said_lets_nobody_in(said: dict[str, Any]) -> None:
    rule = Rule(claim="email", value="boss@plant.example", role=Role.ADMIN)
    config = OidcConfig(issuer="https://id.example", client_id="edgeml", rules=(rule,))
    claims = {"sub": "2", "preferred_username": "eve", "email": "boss@plant.example"}
    with pytest.raises(TrustError, match="No rule"):
        person_of(config, claims | said)
    assert person_of(config, claims | {"email_verified": True}).role is Role.ADMIN


def test_a_claim_is_found_by_its_path_or_by_a_name_with_dots() -> None:
    rule = Rule(claim="realm_access.roles", value="edge", role=Role.ADMIN)
    config = OidcConfig(issuer="https://id.example", client_id="edgeml", rules=(rule,))
    named = {"sub": "1", "preferred_username": "a"}
    for claims in ({"realm_access": {"roles": ["edge"]}}, {"realm_access.roles": "edge"}):
        assert person_of(config, named | claims).role is Role.ADMIN


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("issuer = 1", "Expected `str`"),
        ('issuer = "https://a"\nclient_id = "b"\nrules = []\ncolour = 1', "colour"),
        (CONFIG.format(issuer="http://elsewhere.example"), "without TLS"),
        (CONFIG.format(issuer="https://a.example").replace('"operator"', '"king"'), "king"),
        (CONFIG.format(issuer="https://a.example").replace("site=north", "a b c"), "Line 10"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "oidc.toml").write_text(text)
    with pytest.raises(UserError) as refused:
        read_config(tmp_path / "oidc.toml")
    assert said in str(refused.value)


def _rule() -> Rule:
    return Rule(claim="groups", value="plant-north", role=Role.OPERATOR)


def _login(made: Provider, provider: OpenIdProvider) -> Any:
    provider.person = {"sub": "1", "preferred_username": "alice", "groups": ["plant-north"]}
    provider.lies, provider.sign_with, provider.algorithm = {}, None, "RS256"
    url, cookie = made.begin("http://127.0.0.1/back")
    back = httpx.get(url, timeout=60.0).headers["location"]
    return made.finish(back, "http://127.0.0.1/back", cookie)
