"""What people and programs show to be let in: API tokens, sessions, one-time login links.

Only hashes are kept. A credential never reaches further than its owner does now: a lower role or
a narrower scope of the owner holds at once for all of them.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from fleet.access.scope import both
from fleet.db import tables
from fleet.keys import hash_of, new_token
from fleet.roles import Role
from fleet.rollouts.selector import EVERYTHING, Selector, parse_selector
from fleet.services.columns import fit
from fleet.services.context import Caller, Services

OWNER = "operator"
CONSOLE = "console"
_MAX_REASON = 2000
_USED_EVERY_S = 60.0


class Kind(StrEnum):
    """What a credential is."""

    TOKEN = "token"
    SESSION = "session"
    LINK = "link"


@dataclass(frozen=True)
class Principal:
    """Who asks, and what they may.

    `user` is empty for the machine's owner; `id` is the credential's, empty for the operator's
    token itself; `must_change` where the password was given by somebody else.
    """

    actor: str
    role: Role = Role.ADMIN
    scope: Selector = EVERYTHING
    user: str = ""
    id: str = ""
    kind: Kind = Kind.TOKEN
    expires_at: float | None = None
    must_change: bool = False
    is_good: Callable[[], bool] = field(default=lambda: True, compare=False, repr=False)

    def caller(self, reason: str = "") -> Caller:
        """As services want it."""
        reason = fit(reason.strip(), _MAX_REASON)
        return Caller(self.actor, reason, role=self.role, scope=self.scope)


THE_OWNER = Principal(OWNER)


def issue(
    services: Services,
    session: Session,
    kind: Kind,
    principal: Principal,
    ttl_s: float,
    *,
    name: str = "",
) -> tuple[str, tables.Credential]:
    """Make a credential for somebody in a session that the caller commits; returns the secret.

    Sessions and links that are over are removed on the way.
    """
    now = services.now()
    over = (tables.Credential.kind != Kind.TOKEN) & (tables.Credential.expires_at <= now)
    session.execute(delete(tables.Credential).where(over))
    secret = f"edgeml_{new_token()}" if kind is Kind.TOKEN else new_token()
    row = tables.Credential(
        hash=hash_of(secret),
        id=secrets.token_hex(6),
        kind=kind,
        owner=principal.user or None,
        name=name,
        role=principal.role,
        scope=principal.scope.text,
        created_at=now,
        created_by=principal.actor,
        expires_at=now + ttl_s,
        used_at=None,
        ended_at=None,
    )
    session.add(row)
    return secret, row


def find(services: Services, secret: str, *kinds: Kind) -> Principal | None:
    """Whose a secret is, if it is one of these kinds and good."""
    return _find(services, hash_of(secret), frozenset(kinds))


def use_link(services: Services, secret: str) -> Principal | None:
    """Whose a login link is, if it is good; it is not any more after this, in any process."""
    found = find(services, secret, Kind.LINK)
    if found is None:
        return None
    with services.database.write() as session:
        gone = session.execute(
            delete(tables.Credential).where(tables.Credential.hash == hash_of(secret))
        )
    assert isinstance(gone, CursorResult)
    return found if gone.rowcount == 1 else None


def note_use(services: Services, principal: Principal) -> None:
    """Keep when a token was last used, to the minute."""
    if principal.kind is not Kind.TOKEN or not principal.id:
        return
    if services.counters.is_due(f"credential {principal.id}", _USED_EVERY_S):
        table = tables.Credential
        with services.database.write() as session:
            session.execute(
                update(table).where(table.id == principal.id).values(used_at=services.now())
            )


def end(services: Services, session: Session, user: str, *kinds: Kind) -> None:
    """End what a user has of these kinds; tokens stay in the list, as ended."""
    table = tables.Credential
    for kind in kinds:
        of_user = (table.owner == user) & (table.kind == kind)
        if kind is Kind.TOKEN:
            ended = update(table).where(of_user, table.ended_at.is_(None))
            session.execute(ended.values(ended_at=services.now()))
        else:
            session.execute(delete(table).where(of_user))


def end_all(services: Services, session: Session) -> int:
    """End everybody's sessions, links and tokens; returns how many."""
    table = tables.Credential
    ended = update(table).where(table.kind == Kind.TOKEN, table.ended_at.is_(None))
    done = (
        session.execute(ended.values(ended_at=services.now())),
        session.execute(delete(table).where(table.kind != Kind.TOKEN)),
    )
    return sum(one.rowcount for one in done if isinstance(one, CursorResult))


def end_session(session: Session, principal: Principal) -> None:
    """End one session."""
    table = tables.Credential
    session.execute(delete(table).where(table.id == principal.id, table.kind == Kind.SESSION))


def _find(services: Services, hashed: str, kinds: frozenset[Kind]) -> Principal | None:
    table, user = tables.Credential, tables.User
    query = (
        select(table, user).outerjoin(user, user.name == table.owner).where(table.hash == hashed)
    )
    with services.database.read() as session:
        found = session.execute(query).first()
    if found is None:
        return None
    row, owner = found
    is_over = row.ended_at is not None or row.expires_at <= services.now()
    if row.kind not in kinds or is_over or (owner is not None and owner.disabled_at is not None):
        return None
    return _principal(services, row, owner)


def _principal(services: Services, row: tables.Credential, owner: tables.User | None) -> Principal:
    kind, role, scope = Kind(row.kind), Role(row.role), parse_selector(row.scope)
    if owner is not None:
        role, scope = role.at_most(Role(owner.role)), both(parse_selector(owner.scope), scope)
    name = owner.name if owner else OWNER if kind is Kind.TOKEN else CONSOLE

    def is_good() -> bool:
        again = _find(services, row.hash, frozenset({kind}))
        return again is not None and (again.role, again.scope) == (role, scope)

    return Principal(
        actor=f"{name}/{row.name}" if kind is Kind.TOKEN else name,
        role=role,
        scope=scope,
        user=owner.name if owner else "",
        id=row.id,
        kind=kind,
        expires_at=row.expires_at,
        must_change=owner is not None and owner.must_change and kind is not Kind.TOKEN,
        is_good=is_good,
    )
