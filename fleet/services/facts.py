"""Single values in the database: incarnation, epoch, and why rollouts are frozen."""

from sqlalchemy.orm import Session

from fleet.db import tables

INCARNATION = "incarnation"
EPOCH = "epoch"
FROZEN = "frozen"


def get(session: Session, name: str) -> str:
    """A value, empty where there is none."""
    fact = session.get(tables.Fact, name)
    return fact.value if fact else ""


def put(session: Session, name: str, value: str) -> None:
    """Set a value."""
    session.merge(tables.Fact(name=name, value=value))


def epoch(session: Session) -> int:
    """The epoch of the desired states that are signed now."""
    return int(get(session, EPOCH) or "1")
