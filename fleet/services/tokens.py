"""API tokens: for programs, each with a name, a role, a scope and an end."""

import re

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from edgeml.errors import UserError
from fleet.access.resources import NewToken, TokenInfo
from fleet.access.scope import both
from fleet.db import tables
from fleet.problem import Conflict, Forbidden, NotFound
from fleet.resources import Page
from fleet.roles import Role
from fleet.rollouts.selector import parse_selector
from fleet.services.audit import audited
from fleet.services.context import Services
from fleet.services.credentials import Kind, Principal, issue

DAY_S = 86400.0
DEFAULT_TTL_S = 90 * DAY_S
MAX_TTL_S = 366 * DAY_S
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,47}")


def list_tokens(
    services: Services, principal: Principal, *, after: str = "", limit: int = 100
) -> Page[TokenInfo]:
    """One's own tokens, by id; an admin of the whole fleet sees everybody's."""
    table = tables.Credential
    query = select(table).where(table.kind == Kind.TOKEN, table.id > after)
    if not _sees_all(principal):
        query = query.where(_owned(principal))
    with services.database.read() as session:
        rows = session.scalars(query.order_by(table.id).limit(limit))
        items = [_info(row) for row in rows]
    return {"items": items, "next": items[-1]["id"] if len(items) == limit else None}


def create(
    services: Services,
    principal: Principal,
    name: str,
    *,
    role: Role | None = None,
    scope: str = "",
    ttl_s: float = DEFAULT_TTL_S,
    reason: str = "",
) -> NewToken:
    """Make a token for oneself; its secret is returned once and kept only as a hash.

    Args:
        services: the fleet.
        principal: whose token it is.
        name: what the audit log calls it, after its owner: `alice/ci`.
        role: what it may do; as much as its owner, where none is given.
        scope: narrows the owner's own scope.
        ttl_s: how long it is good.
        reason: why; kept in the audit log.

    Raises:
        UserError: the name, the scope or the time cannot be used.
        Forbidden: the role is above the owner's, or a token asks for it.
        Conflict: the owner has a token of that name.
    """
    require_person(principal)
    wanted = role or principal.role
    if not principal.role.reaches(wanted):
        raise Forbidden(
            f"You cannot make a token with the role {wanted}.",
            why=f"Your own role is {principal.role}, and a token's is never above it.",
            fix="Leave --role out for your own, or take a lower one.",
        )
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name[:48]!r} cannot be a token's name.",
            fix="Use up to 48 letters, digits and . _ -, such as ci.",
        )
    if not 0 < ttl_s <= MAX_TTL_S:
        raise UserError(
            f"A token cannot live for {ttl_s / DAY_S:g} days.",
            why=f"At most {MAX_TTL_S / DAY_S:.0f} are allowed.",
        )
    narrowed = both(principal.scope, parse_selector(scope))
    parse_selector(narrowed.text)  # what both are together may be too long
    owner = Principal(principal.actor, role=wanted, scope=narrowed, user=principal.user)
    subject = f"{principal.actor}/{name}"
    detail = {"role": wanted, "scope": narrowed.text, "ttl_s": ttl_s}
    with audited(services, principal.caller(reason), "token.create", subject, **detail) as session:
        _refuse_taken(services, session, principal, name)
        secret, row = issue(services, session, Kind.TOKEN, owner, ttl_s, name=name)
    return {**_info(row), "token": secret}


def revoke(services: Services, principal: Principal, token: str, reason: str = "") -> TokenInfo:
    """End a token of one's own; an admin of the whole fleet ends anybody's.

    Args:
        services: the fleet.
        principal: who asks.
        token: its id.
        reason: why; kept in the audit log.

    Raises:
        NotFound: there is none of that id, or it is another's.
    """
    with services.database.read() as session:
        row = _get(session, principal, token)
    subject = f"{row.owner or principal.actor}/{row.name}"
    with audited(services, principal.caller(reason), "token.revoke", subject) as session:
        row = _get(session, principal, token)
        row.ended_at = row.ended_at or services.now()
    return _info(row)


def require_person(principal: Principal) -> None:
    """Refuse a token what would outlive it: tokens and links.

    Raises:
        Forbidden: it is one; the operator's own token is as good as a person.
    """
    if principal.kind is Kind.TOKEN and principal.id:
        raise Forbidden(
            "A token cannot be used to make tokens or login links.",
            why="They would outlive it.",
            fix="Log in as yourself: edgeml login",
        )


def _owned(principal: Principal) -> ColumnElement[bool]:
    owner = tables.Credential.owner
    return owner == principal.user if principal.user else owner.is_(None)


def _sees_all(principal: Principal) -> bool:
    return principal.role is Role.ADMIN and not principal.scope.requirements


def _refuse_taken(services: Services, session: Session, principal: Principal, name: str) -> None:
    table = tables.Credential
    same = select(table).where(
        table.kind == Kind.TOKEN,
        _owned(principal),
        table.name == name,
        table.ended_at.is_(None),
        table.expires_at > services.now(),
    )
    if session.scalars(same.limit(1)).first() is not None:
        raise Conflict(
            f"You have a token {name} already.",
            fix="Take another name, or revoke it: edgeml tokens list",
        )


def _get(session: Session, principal: Principal, token: str) -> tables.Credential:
    table = tables.Credential
    query = select(table).where(table.id == token[:16], table.kind == Kind.TOKEN)
    if not _sees_all(principal):
        query = query.where(_owned(principal))
    row = session.scalars(query).first()
    if row is None:
        raise NotFound(f"There is no token {token[:16]!r}.", fix="See them: edgeml tokens list")
    return row


def _info(row: tables.Credential) -> TokenInfo:
    return {
        "id": row.id,
        "owner": row.owner or "",
        "name": row.name,
        "role": row.role,
        "scope": row.scope,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "expires_at": row.expires_at,
        "last_used_at": row.used_at,
        "revoked_at": row.ended_at,
    }
