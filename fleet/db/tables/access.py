"""Who may use the operators' listener: users, what they show to be let in, and rollouts' scopes."""

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from fleet.db.tables.base import Table

USER = String(64)


class User(Table):
    """A person, or a service; never deleted, since the audit log names it.

    One who comes by OpenID Connect has an issuer and a subject instead of a password.
    """

    __tablename__ = "users"

    name: Mapped[str] = mapped_column(USER, primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    scope: Mapped[str]
    password_hash: Mapped[str]
    must_change: Mapped[bool]
    issuer: Mapped[str]
    subject: Mapped[str]
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(128))
    disabled_at: Mapped[float | None]
    last_login_at: Mapped[float | None]


class Credential(Table):
    """An API token, a session or a login link, of which only the hash is kept.

    Without an owner it is of the machine's owner, who holds the operator's token. Role and scope
    are a ceiling: what its owner may not, it may not either.
    """

    __tablename__ = "credentials"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    id: Mapped[str] = mapped_column(String(16), unique=True)
    kind: Mapped[str] = mapped_column(String(8))
    owner: Mapped[str | None] = mapped_column(ForeignKey("users.name"), index=True)
    name: Mapped[str] = mapped_column(USER)
    role: Mapped[str] = mapped_column(String(16))
    scope: Mapped[str]
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(String(128))
    expires_at: Mapped[float] = mapped_column(index=True)
    used_at: Mapped[float | None]
    ended_at: Mapped[float | None]


class RolloutScope(Table):
    """A requirement that all devices of a rollout meet, as its selector says."""

    __tablename__ = "rollout_scopes"

    rollout: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    requirement: Mapped[str] = mapped_column(Text, primary_key=True)
