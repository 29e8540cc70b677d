"""Users, their tokens and their sessions, on both databases."""

from collections.abc import Callable
from typing import Any

import pytest
from argon2 import PasswordHasher

from edgeml.errors import EdgemlError, UserError
from fleet.access import Access, passwords
from fleet.access.oidc import Person
from fleet.problem import Conflict, Forbidden, NotFound, Unauthorized
from fleet.roles import Role
from fleet.rollouts.selector import parse_selector
from fleet.services import Caller, Services, audit, credentials, tokens, users
from fleet.services.credentials import THE_OWNER, Kind, Principal

OPERATOR = Caller("operator", "a test")
PASSWORD = "four words of nobody"
NEXT = "and other four words"
DAY_S = 86400.0


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Argon2 as it is, with the least memory: its cost is not the point here."""
    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(1, 8, 1))


def add(services: Services, name: str, role: Role = Role.OPERATOR, scope: str = "") -> Principal:
    """A user who has changed the first password already, logged in."""
    users.create(services, OPERATOR, name, role, scope=scope, password=PASSWORD)
    users.change_password(services, Caller(name), name, PASSWORD, NEXT)
    return users.log_in(services, name, NEXT)


def session(services: Services, principal: Principal) -> str:
    return Access(services).make_session(principal)


def of_session(services: Services, secret: str) -> Principal | None:
    return credentials.find(services, secret, Kind.SESSION)


def of_token(services: Services, secret: str) -> Principal | None:
    return credentials.find(services, secret, Kind.TOKEN)


def test_the_first_start_makes_an_admin_with_a_password_that_is_shown_once(
    services: Services,
) -> None:
    password = users.begin(services)
    assert len(password) >= 20
    assert users.begin(services) == ""
    first = users.log_in(services, "admin", password)
    assert (first.role, first.must_change) == (Role.ADMIN, True)
    assert [user["name"] for user in users.list_users(services)["items"]] == ["admin"]


def test_a_password_given_by_somebody_else_must_be_changed(services: Services) -> None:
    made = users.create(services, OPERATOR, "alice", Role.VIEWER)
    assert made["must_change_password"]
    first = users.log_in(services, "alice", made["password"])
    assert of_session(services, session(services, first)).must_change  # type: ignore[union-attr]
    changed = users.change_password(services, first.caller(), "alice", made["password"], NEXT)
    assert not changed.must_change
    with pytest.raises(Unauthorized):
        users.log_in(services, "alice", made["password"])


def test_weak_passwords_and_odd_names_are_refused(services: Services) -> None:
    for name in ("operator", "Console", "a/b", "", "-a", "a" * 65, "a b"):
        with pytest.raises(UserError, match="cannot be a user's name"):
            users.create(services, OPERATOR, name, Role.VIEWER)
    users.create(services, OPERATOR, "alice", Role.VIEWER, password=PASSWORD)
    for password in ("short", "aaaaaaaaaaaaaaaa", "alice's password", "x" * 1025, "", PASSWORD):
        with pytest.raises(UserError, match="password cannot be used"):
            users.change_password(services, Caller("alice"), "alice", PASSWORD, password)


def test_a_name_is_had_once_however_it_is_written(services: Services) -> None:
    users.create(services, OPERATOR, "alice", Role.VIEWER)
    with pytest.raises(Conflict):
        users.create(services, OPERATOR, "Alice", Role.VIEWER)


def test_wrong_and_unknown_are_answered_alike(services: Services) -> None:
    add(services, "alice")
    add(services, "bob")
    users.disable(services, OPERATOR, "bob")
    said = set()
    for name, password in (("alice", "wrong"), ("nobody", NEXT), ("bob", NEXT), ("", "")):
        with pytest.raises(Unauthorized) as refused:
            users.log_in(services, name, password)
        said.add(str(refused.value))
    assert len(said) == 1


def test_a_session_ends_when_its_user_is_changed(services: Services) -> None:
    changes: dict[str, Callable[[str], Any]] = {
        "role": lambda name: users.change(services, OPERATOR, name, role=Role.APPROVER),
        "scope": lambda name: users.change(services, OPERATOR, name, scope="site=north"),
        "own": lambda name: users.change_password(services, Caller(name), name, NEXT, PASSWORD),
        "reset": lambda name: users.reset_password(services, OPERATOR, name),
        "disable": lambda name: users.disable(services, OPERATOR, name),
    }
    stays = session(services, add(services, "stays"))
    for change, make in changes.items():
        name = f"user-{change}"
        secret = session(services, add(services, name))
        found = of_session(services, secret)
        assert found is not None
        assert found.is_good()
        make(name)
        assert of_session(services, secret) is None, change
        assert not found.is_good()
    assert of_session(services, stays) is not None


def test_a_session_ends_by_itself_and_by_logging_out(services: Services, clock: Any) -> None:
    alice = add(services, "alice")
    first, second = session(services, alice), session(services, alice)
    found = of_session(services, first)
    assert found is not None
    with services.database.write() as writing:
        credentials.end_session(writing, found)
    assert of_session(services, first) is None
    assert of_session(services, second) is not None
    clock.now += 12 * 3600.0 + 1
    assert of_session(services, second) is None


def test_a_disabled_user_has_nothing_left(services: Services) -> None:
    alice = add(services, "alice")
    made = tokens.create(services, alice, "ci")
    link = Access(services).make_link(alice)["url"].partition("token=")[2]
    users.disable(services, OPERATOR, "alice")
    assert of_token(services, made["token"]) is None
    assert Access(services).use_link(link) is None
    users.enable(services, OPERATOR, "alice")
    assert of_token(services, made["token"]) is None
    assert users.log_in(services, "alice", NEXT).user == "alice"


def test_somebody_who_may_manage_users_is_left(services: Services) -> None:
    users.begin(services)
    users.create(services, OPERATOR, "north", Role.ADMIN, scope="site=north")
    for change in (
        lambda: users.disable(services, OPERATOR, "admin"),
        lambda: users.change(services, OPERATOR, "admin", role=Role.APPROVER),
        lambda: users.change(services, OPERATOR, "admin", scope="site=north"),
    ):
        with pytest.raises(Conflict, match="Nobody would be left"):
            change()
    users.create(services, OPERATOR, "second", Role.ADMIN)
    assert users.disable(services, OPERATOR, "admin")["disabled_at"]


def test_what_is_not_there_is_not_found(services: Services) -> None:
    calls: list[Any] = [
        lambda: users.show(services, "none"),
        lambda: users.disable(services, OPERATOR, "none"),
        lambda: users.reset_password(services, OPERATOR, "none"),
        lambda: tokens.revoke(services, THE_OWNER, "none"),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call()


def test_a_token_speaks_for_its_owner_until_it_is_revoked(services: Services, clock: Any) -> None:
    alice = add(services, "alice")
    made = tokens.create(services, alice, "ci", role=Role.VIEWER, ttl_s=10 * DAY_S)
    found = of_token(services, made["token"])
    assert found is not None
    assert (found.actor, found.role, found.user) == ("alice/ci", Role.VIEWER, "alice")
    assert tokens.revoke(services, alice, made["id"])["revoked_at"] == clock.now
    assert of_token(services, made["token"]) is None


def test_a_token_ends_by_itself(services: Services, clock: Any) -> None:
    made = tokens.create(services, add(services, "alice"), "ci", ttl_s=DAY_S)
    clock.now += DAY_S
    assert of_token(services, made["token"]) is None
    # Its name is free again; the old one stays in the list.
    tokens.create(services, add(services, "bob"), "ci")
    assert len(tokens.list_tokens(services, THE_OWNER)["items"]) == 2


def test_a_token_is_kept_as_a_hash_only(services: Services) -> None:
    made = tokens.create(services, add(services, "alice"), "ci")
    with services.database.read() as reading:
        everything = [
            str(row)
            for table in ("credentials", "audit", "users")
            for row in reading.connection().exec_driver_sql(f"SELECT * FROM {table}")
        ]
    assert not any(made["token"] in row or NEXT in row for row in everything)


def test_a_tokens_role_is_never_above_its_owners(services: Services) -> None:
    alice = add(services, "alice", Role.APPROVER)
    with pytest.raises(Forbidden, match="never above"):
        tokens.create(services, alice, "ci", role=Role.ADMIN)
    made = tokens.create(services, alice, "ci", role=Role.APPROVER)
    users.change(services, OPERATOR, "alice", role=Role.VIEWER)
    found = of_token(services, made["token"])
    assert found is not None
    assert found.role is Role.VIEWER


def test_a_tokens_scope_is_inside_its_owners(services: Services) -> None:
    alice = add(services, "alice", scope="site in (north,south)")
    made = tokens.create(services, alice, "ci", scope="line=3")
    users.change(services, OPERATOR, "alice", scope="site=north")
    found = of_token(services, made["token"])
    assert found is not None
    assert found.scope.matches({"site": "north", "line": "3"})
    for outside in ({"site": "south", "line": "3"}, {"site": "north"}, {}):
        assert not found.scope.matches(outside)


def test_a_token_makes_nothing_that_outlives_it(services: Services) -> None:
    made = tokens.create(services, add(services, "alice", Role.ADMIN), "ci")
    token = of_token(services, made["token"])
    assert token is not None
    with pytest.raises(Forbidden, match="outlive"):
        tokens.create(services, token, "more")


def test_the_machines_owner_has_tokens_too(services: Services) -> None:
    made = tokens.create(services, THE_OWNER, "ci", role=Role.OPERATOR)
    found = of_token(services, made["token"])
    assert found is not None
    assert (found.actor, found.role) == ("operator/ci", Role.OPERATOR)
    assert found.caller().person == "operator"


def test_everybody_sees_their_own_tokens_and_an_admin_all(services: Services) -> None:
    alice, bob = add(services, "alice"), add(services, "bob", Role.ADMIN, "site=north")
    made = tokens.create(services, alice, "ci")
    tokens.create(services, bob, "ci")

    def owners(principal: Principal) -> set[str]:
        return {token["owner"] for token in tokens.list_tokens(services, principal)["items"]}

    assert (owners(alice), owners(bob)) == ({"alice"}, {"bob"})
    assert owners(THE_OWNER) == {"alice", "bob"}
    with pytest.raises(NotFound):
        tokens.revoke(services, bob, made["id"])


def test_a_token_that_cannot_be_is_refused(services: Services) -> None:
    wrong: list[dict[str, Any]] = [
        {"name": "a/b"},
        {"name": ""},
        {"ttl_s": 0.0},
        {"ttl_s": 367 * DAY_S},
        {"scope": "a b"},
    ]
    for given in wrong:
        with pytest.raises(UserError):
            tokens.create(services, THE_OWNER, **{"name": "ci", **given})


def test_the_last_use_of_a_token_is_kept(services: Services, clock: Any) -> None:
    made = tokens.create(services, THE_OWNER, "ci")
    clock.now += 60.0
    found = of_token(services, made["token"])
    assert found is not None
    credentials.note_use(services, found)
    [shown] = tokens.list_tokens(services, THE_OWNER)["items"]
    assert shown["last_used_at"] == clock.now


def test_a_link_is_good_once_in_whichever_process(services: Services) -> None:
    one, other = Access(services), Access(services)
    alice = add(services, "alice", scope="site=north")
    token = one.make_link(alice)["url"].partition("token=")[2]
    found = other.use_link(token)
    assert found is not None
    assert (found.actor, found.scope) == ("alice", parse_selector("site=north"))
    assert one.use_link(token) is None


def test_whoever_an_openid_provider_vouches_for_becomes_a_user(services: Services) -> None:
    def person(role: Role = Role.VIEWER, subject: str = "1", name: str = "alice") -> Person:
        issuer = "https://id.example"
        return Person(name=name, issuer=issuer, subject=subject, role=role, scope="site=north")

    first = users.log_in_by_oidc(services, person())
    secret = session(services, first)
    assert (first.role, str(first.scope)) == (Role.VIEWER, "site in (north)")
    # The provider's word at each login is what holds; the old sessions end.
    assert users.log_in_by_oidc(services, person(Role.OPERATOR)).role is Role.OPERATOR
    assert of_session(services, secret) is None
    refused: list[Person] = [person(subject="2"), person(name="operator"), person(name="ALICE")]
    for other in refused:
        with pytest.raises(EdgemlError):
            users.log_in_by_oidc(services, other)
    with pytest.raises(Unauthorized):
        users.log_in(services, "alice", "")
    with pytest.raises(UserError, match="no password here"):
        users.reset_password(services, OPERATOR, "alice")
    users.disable(services, OPERATOR, "alice")
    with pytest.raises(Unauthorized):
        users.log_in_by_oidc(services, person())


def test_an_openid_provider_does_not_take_over_a_user_with_a_password(
    services: Services,
) -> None:
    add(services, "alice")
    stranger = Person(
        name="alice", issuer="https://id.example", subject="1", role=Role.ADMIN, scope=""
    )
    with pytest.raises(Unauthorized):
        users.log_in_by_oidc(services, stranger)
    assert users.show(services, "alice")["role"] == "operator"


def test_all_of_it_is_in_the_audit_log(services: Services) -> None:
    alice = add(services, "alice")
    tokens.create(services, alice, "ci", reason="the nightly run")
    users.disable(services, OPERATOR, "alice")
    found = [(e["actor"], e["action"], e["subject"]) for e in audit.entries(services)["items"]]
    assert found == [
        ("operator", "user.disable", "alice"),
        ("alice", "token.create", "alice/ci"),
        ("alice", "session.begin", "alice"),
        ("alice", "user.password", "alice"),
        ("operator", "user.create", "alice"),
    ]
    assert audit.verify(services) == len(found)


def test_a_caller_with_a_scope_sees_what_they_did_and_what_was_done_with_their_devices(
    services: Services, enroll: Any, tmp_path: Any
) -> None:
    for site in ("north", "south"):
        enroll(services, tmp_path, f"cam-{site}", site=site)
    alice = add(services, "alice", scope="site=north")
    tokens.create(services, alice, "ci")
    seen = audit.entries(services, caller=alice.caller())["items"]
    assert {e["subject"] for e in seen} == {"alice", "alice/ci", "cam-north"}
    assert not {e["actor"] for e in seen} - {"alice", "operator", "device cam-north"}
