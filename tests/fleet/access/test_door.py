"""The door over sockets: logging in and out, what a browser may send, how often one may ask."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from fleet.access import Access
from fleet.access.door import _address
from fleet.access.rate import Rate, Rates
from fleet.client import FleetClient
from fleet.db import tables
from fleet.roles import Role
from fleet.services import Caller, audit, users
from tests.fleet.conftest import Listening, listen, make_services

OPERATOR = Caller("operator", "a test")
FIRST, PASSWORD = "four words of nobody", "and other four words"
RATES = Rates(login=Rate(burst=60, per_s=0.001), stranger=Rate(burst=300, per_s=0.001))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    """A fleet with alice, who has a password of her own, and bob, who has one of another's."""
    services = make_services(tmp_path_factory.mktemp("door"))
    users.create(services, OPERATOR, "alice", Role.OPERATOR, password=FIRST)
    users.change_password(services, Caller("alice"), "alice", FIRST, PASSWORD)
    users.create(services, OPERATOR, "bob", Role.VIEWER, password=FIRST)
    found, end = listen(services, lambda made: Access(made, RATES))
    yield found
    end()
    services.database.close()


@pytest.fixture
def browser(fleet: Listening) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fleet.operators, timeout=60.0) as client:
        yield client


def log_in(browser: httpx.Client, fleet: Listening, **form: str) -> httpx.Response:
    data = {"user": "alice", "password": PASSWORD, **form}
    return browser.post("/login", data=data, headers={"Origin": fleet.operators})


def test_a_browser_logs_in_and_out(fleet: Listening, browser: httpx.Client) -> None:
    assert 'action="/login"' in browser.get("/").text
    assert browser.get("/login").status_code == 200
    entered = log_in(browser, fleet)
    assert (entered.status_code, entered.headers["location"]) == (303, "/")
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert browser.get("/api/v1/me").json()["actor"] == "alice"
    assert "alice" in browser.get("/logout").text
    kept = dict(browser.cookies)
    left = browser.post("/logout", headers={"Origin": fleet.operators})
    assert (left.status_code, left.headers["location"]) == (303, "/login")
    # The cookie is worth nothing any more, also to one who has kept it.
    with httpx.Client(base_url=fleet.operators, cookies=kept) as thief:
        assert thief.get("/api/v1/me").status_code == 401
    newest = [(e["actor"], e["action"]) for e in audit.entries(fleet.services, limit=2)["items"]]
    assert newest == [("alice", "session.end"), ("alice", "session.begin")]


@pytest.mark.parametrize("form", [{"password": "wrong"}, {"user": "nobody"}, {"user": "a" * 999}])
def test_a_wrong_login_is_told_and_noted(
    fleet: Listening, browser: httpx.Client, form: dict[str, str]
) -> None:
    answer = log_in(browser, fleet, **form)
    assert answer.status_code == 401
    assert "name or the password is wrong" in answer.text
    assert "edgeml_session" not in browser.cookies
    assert fleet.services.counters.all()["security.login_refused"] > 0


def test_another_sites_form_logs_nobody_in(fleet: Listening, browser: httpx.Client) -> None:
    data = {"user": "alice", "password": PASSWORD}
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert browser.post("/login", data=data, headers=headers).status_code == 403
    assert "edgeml_session" not in browser.cookies


def test_another_sites_page_changes_nothing(fleet: Listening, browser: httpx.Client) -> None:
    log_in(browser, fleet)
    body = {"name": "ci"}
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": "null"}):
        assert browser.post("/api/v1/tokens", json=body, headers=headers).status_code == 401
        assert browser.post("/logout", headers=headers).status_code == 401
    own = browser.post("/api/v1/tokens", json=body, headers={"Origin": fleet.operators})
    assert own.status_code == 201
    assert own.headers["cache-control"] == "no-store"


def test_a_session_is_a_bearer_token_for_programs(fleet: Listening) -> None:
    with FleetClient(fleet.operators, "") as client:
        login = client.login("alice", PASSWORD)
    with FleetClient(fleet.operators, login["token"]) as client:
        assert client.me()["expires_at"] == login["expires_at"]
        made = client.create_token("nightly", role="viewer", ttl_s=60.0, reason="a test")
        with FleetClient(fleet.operators, made["token"]) as program:
            assert (program.me()["actor"], program.me()["role"]) == ("alice/nightly", "viewer")
        client.revoke_token(made["id"])
        client.logout()
    with httpx.Client(base_url=fleet.operators) as stranger:
        for token in (login["token"], made["token"]):
            headers = {"Authorization": f"Bearer {token}"}
            assert stranger.get("/api/v1/me", headers=headers).status_code == 401


def test_nothing_is_done_with_a_password_of_somebody_elses_but_to_change_it(
    fleet: Listening, browser: httpx.Client
) -> None:
    assert log_in(browser, fleet, user="bob", password=FIRST).status_code == 303
    refused = browser.get("/api/v1/devices")
    assert (refused.status_code, refused.json()["kind"]) == (403, "TrustError")
    assert browser.get("/v2/").status_code == 403
    page = browser.get("/")
    assert page.status_code == 403
    assert 'action="/login/password"' in page.text
    own = {"Origin": fleet.operators}
    for old, new, status in (("wrong", PASSWORD, 401), (FIRST, "short", 422), (FIRST, FIRST, 422)):
        form = {"old": old, "new": new}
        assert browser.post("/login/password", data=form, headers=own).status_code == status
    form = {"old": FIRST, "new": PASSWORD}
    assert browser.post("/login/password", data=form, headers=own).status_code == 303
    assert browser.get("/api/v1/devices").status_code == 200


def test_every_answer_says_what_a_browser_may_do_with_it(
    fleet: Listening, browser: httpx.Client
) -> None:
    log_in(browser, fleet)
    for path in ("/api/v1/health", "/login", "/nothing", "/api/v1/nothing"):
        headers = browser.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "strict-transport-security" not in headers  # without TLS
    page, api = browser.get("/login"), browser.get("/api/v1/health")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "script" not in page.text
    assert "//" not in page.text.replace("<!doctype", "")  # no other host
    assert page.headers["referrer-policy"] == "same-origin"
    assert api.headers["referrer-policy"] == "no-referrer"
    assert api.headers["cache-control"] == "private, no-cache"


def test_a_form_that_is_none_is_refused(fleet: Listening, browser: httpx.Client) -> None:
    own = {"Origin": fleet.operators}
    for content in (b"", b"\xff\xfe", b"&".join([b"a=1"] * 50), b"user=" + b"a" * 50_000):
        assert browser.post("/login", content=content, headers=own).status_code == 401


def test_an_unknown_role_or_scope_is_refused_with_a_sentence(fleet: Listening) -> None:
    for body in (
        {"name": "eve", "role": "king"},
        {"name": "eve", "role": "viewer", "scope": "a b c"},
        {"name": "e/ve", "role": "viewer"},
        {"name": "eve", "role": "viewer", "password": "short"},
        {"name": "eve"},
    ):
        answer = _owner(fleet, "POST", "/api/v1/users", json=body)
        assert answer.status_code == 422, body
        assert answer.json()["detail"]


def test_users_are_looked_after_over_the_api(fleet: Listening) -> None:
    client = fleet.client
    made = client.add_user("carol", "viewer", scope="site=north", reason="new here")
    assert len(made["password"]) >= 20
    with FleetClient(fleet.operators, "") as stranger:
        token = stranger.login("carol", made["password"])["token"]
    assert client.change_user("carol", role="approver")["scope"] == "site=north"
    assert client.change_user("carol", scope="")["role"] == "approver"
    assert client.reset_password("carol")["password"] != made["password"]
    assert _get(fleet, token).status_code == 401
    assert client.disable_user("carol", "gone")["disabled_at"]
    assert client.enable_user("carol")["disabled_at"] is None
    assert client.user("carol")["role"] == "approver"
    assert {"alice", "bob", "carol"} <= {user["name"] for user in client.users()}
    assert "new here" in {entry["reason"] for entry in client.audit()}


def test_the_holder_of_the_operators_token_has_no_session(fleet: Listening) -> None:
    assert _owner(fleet, "POST", "/api/v1/logout").status_code == 409
    body = {"old": "", "new": PASSWORD}
    assert _owner(fleet, "PUT", "/api/v1/me/password", json=body).status_code == 409
    assert fleet.client.me()["actor"] == "operator"


def test_who_may_not_is_still_let_in_elsewhere(fleet: Listening) -> None:
    with fleet.services.database.write() as session:
        session.get_one(tables.User, "alice").role = Role.VIEWER
    with FleetClient(fleet.operators, "") as client:
        token = client.login("alice", PASSWORD)["token"]
    assert _get(fleet, token).status_code == 200
    with fleet.services.database.write() as session:
        session.get_one(tables.User, "alice").role = Role.OPERATOR


def _owner(fleet: Listening, method: str, path: str, **request: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {fleet.services.keys.operator_token}"}
    return httpx.request(method, f"{fleet.operators}{path}", headers=headers, **request)


def _get(fleet: Listening, token: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.get(f"{fleet.operators}/api/v1/devices", headers=headers, timeout=60.0)


@pytest.mark.parametrize(
    ("rates", "method", "path", "known"),
    [
        (Rates(login=Rate(2, 0.001)), "POST", "/api/v1/login", False),
        (Rates(login=Rate(2, 0.001)), "POST", "/login", False),
        (Rates(stranger=Rate(2, 0.001)), "GET", "/api/v1/devices", False),
        (Rates(stranger=Rate(2, 0.001)), "GET", "/login", False),
        (Rates(request=Rate(2, 0.001)), "GET", "/api/v1/health", True),
    ],
)
def test_who_asks_too_often_is_told_when_to_ask_again(
    shared_fleet: Listening,
    monkeypatch: pytest.MonkeyPatch,
    rates: Rates,
    method: str,
    path: str,
    known: bool,
) -> None:
    slow = Access(shared_fleet.services, rates)
    for name in ("logins", "strangers", "requests"):
        monkeypatch.setattr(shared_fleet.access, name, getattr(slow, name))
    token = shared_fleet.services.keys.operator_token
    headers = {"Authorization": f"Bearer {token}"} if known else {}
    with httpx.Client(base_url=shared_fleet.operators, headers=headers, timeout=60.0) as client:
        answers = [client.request(method, path) for _ in range(3)]
    assert [answer.status_code == 429 for answer in answers] == [False, False, True]
    last = answers[-1]
    assert last.headers["content-type"] == "application/problem+json"
    assert int(last.headers["retry-after"]) > 1
    assert last.json()["fix"].startswith("Ask again in")


def test_guesses_at_one_user_are_slowed_from_wherever_they_come(
    shared_fleet: Listening, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Access(shared_fleet.services, Rates(user=Rate(2, 0.001)))
    monkeypatch.setattr(shared_fleet.access, "names", slow.names)
    for name in ("alice", "ALICE"):
        slow.require_login(name)  # as from other addresses
    body = {"user": "alice", "password": "guess"}
    answer = httpx.post(f"{shared_fleet.operators}/api/v1/login", json=body, timeout=60.0)
    assert answer.status_code == 429


def test_one_address_alone_keeps_no_user_out() -> None:
    rates = Rates()
    assert rates.user.burst > rates.login.burst
    assert rates.user.per_s > rates.login.per_s


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_a_network_of_ipv6_is_one_stranger(one: str, other: str, same: bool) -> None:
    counted = [_address({"client": (address, 1)}) for address in (one, other)]
    assert (counted[0] == counted[1]) is same
