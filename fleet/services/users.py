"""Users: who may log in, as what, and which devices they see.

A change of role, scope or password ends a user's sessions at once; disabling one ends their
tokens, too. Users are never deleted: the audit log names them.
"""

import re
import secrets

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from edgeml.errors import UserError
from fleet.access.oidc import Person
from fleet.access.passwords import (
    check_password,
    hash_password,
    is_outdated,
    is_password,
)
from fleet.access.resources import NewUser, UserInfo
from fleet.db import tables
from fleet.problem import Conflict, NotFound, Unauthorized
from fleet.resources import Page
from fleet.roles import Role
from fleet.rollouts.selector import parse_selector
from fleet.services import security
from fleet.services.audit import append, audited, sync_head
from fleet.services.context import Caller, Services
from fleet.services.credentials import Kind, Principal, end

FIRST = "admin"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_RESERVED = frozenset({"operator", "console", "controller", "fleet", "device", "webhook", "system"})
_CHALLENGE = 'Bearer realm="edgeml"'
_PASSWORD_BYTES = 15
_FLEET = Caller("fleet", "The fleet's first start.")


def begin(services: Services) -> str:
    """Make the first admin, where there are no users; returns the password, to be shown once.

    Empty where there are users. Of several processes that begin at once, one makes it.
    """
    with services.database.write() as session:
        services.database.one_at_a_time(session, "users")
        if session.scalars(select(tables.User).limit(1)).first() is not None:
            return ""
        password = _new_password()
        _add(services, session, _FLEET, FIRST, role=Role.ADMIN, scope="", password=password)
        append(services, session, _FLEET, "user.create", FIRST, role=Role.ADMIN, scope="")
    sync_head(services)
    return password


def list_users(services: Services, *, after: str = "", limit: int = 100) -> Page[UserInfo]:
    """The users, by name."""
    table = tables.User
    query = select(table).where(table.name > after).order_by(table.name).limit(limit)
    with services.database.read() as session:
        items = [_info(row) for row in session.scalars(query)]
    return {"items": items, "next": items[-1]["name"] if len(items) == limit else None}


def show(services: Services, name: str) -> UserInfo:
    """One user.

    Raises:
        NotFound: there is none of that name.
    """
    with services.database.read() as session:
        return _info(_get(session, name))


def create(
    services: Services,
    caller: Caller,
    name: str,
    role: Role,
    *,
    scope: str = "",
    password: str = "",
) -> NewUser:
    """Make a user with a password that must be changed at the first login.

    Args:
        services: the fleet.
        caller: who and why.
        name: what they log in with.
        role: what they may do.
        scope: a label selector; empty for the whole fleet.
        password: the first one; empty: one is made, and returned.

    Raises:
        UserError: the name, the scope or the password cannot be used.
        Conflict: there is a user of that name.
    """
    _check_name(name)
    made = "" if password else _new_password()
    given = made or check_password(password, name)
    with audited(services, caller, "user.create", name, role=role, scope=scope) as session:
        _refuse_taken(session, name)
        row = _add(services, session, caller, name, role=role, scope=scope, password=given)
    return {**_info(row), "password": made}


def change(
    services: Services,
    caller: Caller,
    name: str,
    *,
    role: Role | None = None,
    scope: str | None = None,
) -> UserInfo:
    """Give a user another role or scope; what is none stays. Their sessions end.

    Raises:
        NotFound: there is none of that name.
        UserError: the scope cannot be read.
        Conflict: nobody would be left who may manage users.
    """
    with services.database.read() as session:
        found = _get(session, name)
    to_role, to_scope = role or Role(found.role), found.scope if scope is None else scope
    parse_selector(to_scope)
    with audited(services, caller, "user.change", name, role=to_role, scope=to_scope) as session:
        row = _get(session, name)
        managed = _manages_users(row)
        row.role, row.scope = to_role, to_scope
        _require_manager(session, managed=managed)
        end(services, session, name, Kind.SESSION, Kind.LINK)
    return _info(row)


def disable(services: Services, caller: Caller, name: str) -> UserInfo:
    """Let a user in no more: sessions and tokens end.

    Raises:
        NotFound: there is none of that name.
        Conflict: nobody would be left who may manage users.
    """
    with audited(services, caller, "user.disable", name) as session:
        row = _get(session, name)
        managed = _manages_users(row)
        row.disabled_at = row.disabled_at or services.now()
        _require_manager(session, managed=managed)
        end(services, session, name, Kind.SESSION, Kind.LINK, Kind.TOKEN)
    return _info(row)


def enable(services: Services, caller: Caller, name: str) -> UserInfo:
    """Let a user in again; their tokens stay ended.

    Raises:
        NotFound: there is none of that name.
    """
    with audited(services, caller, "user.enable", name) as session:
        row = _get(session, name)
        row.disabled_at = None
    return _info(row)


def reset_password(services: Services, caller: Caller, name: str, password: str = "") -> NewUser:
    """Give a user a new password, to be changed at the next login; their sessions end.

    Raises:
        NotFound: there is none of that name.
        UserError: the password cannot be used, or the user logs in by OpenID Connect.
    """
    made = "" if password else _new_password()
    given = made or check_password(password, name)
    with audited(services, caller, "user.password", name) as session:
        row = _get(session, name)
        _refuse_oidc(row)
        row.password_hash, row.must_change = hash_password(given), True
        end(services, session, name, Kind.SESSION, Kind.LINK)
    return {**_info(row), "password": made}


def change_password(services: Services, caller: Caller, name: str, old: str, new: str) -> Principal:
    """Change one's own password; all one's sessions end.

    Raises:
        Unauthorized: the old one is wrong.
        UserError: the new one cannot be used, or is the old one.
    """
    with services.database.read() as session:
        row = _get(session, name)
        _refuse_oidc(row)
    if not is_password(old, row.password_hash):
        raise _refused(services, name, "The old password is wrong.")
    check_password(new, name)
    if old == new:
        raise UserError("The password cannot be used.", why="It is the one that you have.")
    with audited(services, caller, "user.password", name) as session:
        row = _get(session, name)
        row.password_hash, row.must_change = hash_password(new), False
        end(services, session, name, Kind.SESSION, Kind.LINK)
    return principal_of(row)


def log_in(services: Services, name: str, password: str) -> Principal:
    """Who has this name and password.

    Raises:
        Unauthorized: nobody, or they are disabled; which of it is not said.
    """
    with services.database.read() as session:
        row = session.get(tables.User, name[:64])
    right = is_password(password, row.password_hash if row else "")
    if row is None or not right or row.disabled_at is not None:
        raise _refused(services, name, "The name or the password is wrong.")
    with audited(services, Caller(name), "session.begin", name, by="password") as session:
        row = _get(session, name)
        row.last_login_at = services.now()
        if is_outdated(row.password_hash):
            row.password_hash = hash_password(password)
    return principal_of(row)


def log_in_by_oidc(services: Services, person: Person) -> Principal:
    """Who an OpenID provider vouches for; made at the first login, and kept as it says at each.

    Raises:
        Unauthorized: the name is another's, or they are disabled.
        UserError: the name or the scope cannot be used.
    """
    name, issuer = person.name, person.issuer
    _check_name(name)
    detail = {"by": issuer, "role": person.role, "scope": person.scope}
    with audited(services, Caller(name), "session.begin", name, **detail) as session:
        row = session.get(tables.User, name)
        if row is None:
            made_by = Caller(issuer)
            _refuse_taken(session, name)
            row = _add(services, session, made_by, name, role=person.role, scope=person.scope)
            row.issuer, row.subject = issuer, person.subject
        if (row.issuer, row.subject) != (issuer, person.subject):
            raise _unauthorized(f"There is another user {name} already.")
        if row.disabled_at is not None:
            raise _unauthorized(f"{name} is disabled.")
        if (row.role, row.scope) != (person.role, person.scope):
            row.role, row.scope = person.role, person.scope
            end(services, session, name, Kind.SESSION, Kind.LINK)
        row.last_login_at = services.now()
    return principal_of(row)


def principal_of(row: tables.User) -> Principal:
    """A user, before they have a session."""
    return Principal(
        actor=row.name,
        role=Role(row.role),
        scope=parse_selector(row.scope),
        user=row.name,
        kind=Kind.SESSION,
        must_change=row.must_change,
    )


def _add(
    services: Services,
    session: Session,
    caller: Caller,
    name: str,
    *,
    role: Role,
    scope: str,
    password: str = "",
) -> tables.User:
    row = tables.User(
        name=name,
        role=role,
        scope=parse_selector(scope).text,
        password_hash=hash_password(password) if password else "",
        must_change=bool(password),
        issuer="",
        subject="",
        created_at=services.now(),
        created_by=caller.actor[:128],
        disabled_at=None,
        last_login_at=None,
    )
    session.add(row)
    session.flush()
    return row


def _new_password() -> str:
    return secrets.token_urlsafe(_PASSWORD_BYTES)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name.lower() in _RESERVED:
        raise UserError(
            f"{name[:64]!r} cannot be a user's name.",
            why="The fleet uses it itself." if name.lower() in _RESERVED else "",
            fix="Use up to 64 letters, digits and . _ @ + -, such as alice or alice@example.org.",
        )


def _refuse_taken(session: Session, name: str) -> None:
    table = tables.User
    same = select(table.name).where(func.lower(table.name) == name.lower())
    if session.scalars(same.limit(1)).first() is not None:
        raise Conflict(f"There is a user {name} already.", fix="See them all: edgeml users list")


def _refuse_oidc(row: tables.User) -> None:
    if row.issuer:
        raise UserError(f"{row.name} has no password here.", why=f"They log in with {row.issuer}.")


def _manages_users(row: tables.User) -> bool:
    return row.role == Role.ADMIN and not row.scope and row.disabled_at is None


def _require_manager(session: Session, *, managed: bool) -> None:
    """Refuse that the last one who `managed` users does no more."""
    session.flush()
    table = tables.User
    admins = select(table).where(table.role == Role.ADMIN)
    if managed and not any(map(_manages_users, session.scalars(admins))):
        raise Conflict(
            "Nobody would be left who may manage users.",
            why="That needs an admin whose scope is the whole fleet.",
            fix="Make another one first: edgeml users add NAME --role admin",
        )


def _refused(services: Services, name: str, why: str) -> Unauthorized:
    security.record(services, "login_refused", "", f"Login as {name[:64]!r} was refused.")
    return _unauthorized(why)


def _unauthorized(why: str) -> Unauthorized:
    return Unauthorized(
        "You were not logged in.",
        challenge=_CHALLENGE,
        why=why,
        fix="Try again, or ask an admin for a new password: edgeml users passwd USER",
    )


def _get(session: Session, name: str) -> tables.User:
    row = session.get(tables.User, name[:64])
    if row is None:
        raise NotFound(f"There is no user {name[:64]!r}.", fix="See them all: edgeml users list")
    return row


def _info(row: tables.User) -> UserInfo:
    return {
        "name": row.name,
        "role": row.role,
        "scope": row.scope,
        "issuer": row.issuer,
        "must_change_password": row.must_change,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "disabled_at": row.disabled_at,
        "last_login_at": row.last_login_at,
    }
