"""Label scopes: a team sees its own sites, and nothing it does reaches another's.

A scope is a label selector. In SQL it is a condition on a column that holds devices' ids, so that
what is outside it is never read. A rollout is *confined* to a scope if its selector names every
requirement of the scope: all that it ever selects is inside.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, exists, or_, select, true
from sqlalchemy.orm import Session, aliased

from fleet.db import tables
from fleet.problem import Forbidden, NotFound
from fleet.rollouts.selector import EVERYTHING, Requirement, Selector, parse_selector
from fleet.services.selection import chosen

__all__ = [
    "EVERYTHING",
    "both",
    "confine",
    "confined",
    "note_rollout",
    "require_device",
    "require_labels",
    "require_rollout",
    "touched",
    "within",
]


def both(one: Selector, other: Selector) -> Selector:
    """The scope of what is in both; where one of them says it all, as that one was written.

    >>> str(both(parse_selector("site=north"), parse_selector("line=3,site=north")))
    'site in (north),line in (3)'
    """
    known = {_canonical(requirement) for requirement in one.requirements}
    more = [found for found in other.requirements if _canonical(found) not in known]
    if not more or not one.requirements:
        return other if more else one
    requirements = (*one.requirements, *more)
    return Selector(text=",".join(map(str, requirements)), requirements=requirements)


def confine(selector: str, scope: Selector) -> str:
    """A selector's text, narrowed to a scope.

    Raises:
        UserError: the selector cannot be read.
    """
    parsed = parse_selector(selector)
    narrowed = both(parsed, scope)
    return selector if narrowed.requirements == parsed.requirements else narrowed.text


def within(device: Any, scope: Selector) -> ColumnElement[bool]:
    """The condition that a column's device is in a scope.

    Args:
        device: a column with devices' ids, such as `tables.Evidence.device`.
        scope: the scope; everything where it is empty.
    """
    return chosen(scope, device)


def confined(rollout: Any, scope: Selector) -> ColumnElement[bool]:
    """The condition that a column's rollout selects nothing outside a scope, whatever joins."""
    table = tables.RolloutScope
    return and_(
        true(),
        *(
            exists(
                select(1).where(
                    table.rollout == rollout, table.requirement == _canonical(requirement)
                )
            )
            for requirement in scope.requirements
        ),
    )


def touched(rollout: Any, scope: Selector) -> ColumnElement[bool]:
    """The condition that a column's rollout is confined to a scope or has a device of it."""
    if not scope.requirements:
        return true()
    place = aliased(tables.Assignment)
    has = exists(select(1).where(place.rollout == rollout, within(place.device, scope)))
    return or_(confined(rollout, scope), has)


def note_rollout(session: Session, rollout: str, selector: str) -> None:
    """Keep what the devices of a new rollout have in common, for `confined`."""
    session.flush()
    session.add_all(
        tables.RolloutScope(rollout=rollout, requirement=requirement)
        for requirement in {_canonical(r) for r in parse_selector(selector).requirements}
    )


def require_device(session: Session, device: str, scope: Selector) -> None:
    """Refuse a device outside a scope as if there were none.

    Raises:
        NotFound: there is none, or it is outside.
    """
    table = tables.Device
    inside = select(table.id).where(table.id == device, within(table.id, scope))
    if session.scalar(inside) is None:
        raise NotFound(
            f"There is no device {device[:64]!r}.", fix="See them all: edgeml devices list"
        )


def require_rollout(session: Session, rollout: str, scope: Selector, *, changes: bool) -> None:
    """Refuse a rollout that has no device of a scope, and changes of one that has others, too.

    Raises:
        NotFound: there is none, or it has no device of the scope.
        Forbidden: it is to be changed, and reaches devices outside the scope.
    """
    table = tables.Rollout
    if (
        session.scalar(select(table.id).where(table.id == rollout, touched(table.id, scope)))
        is None
    ):
        raise NotFound(
            f"There is no rollout {rollout[:64]!r}.", fix="See them all: edgeml rollout list"
        )
    if changes and not session.scalar(
        select(table.id).where(table.id == rollout, confined(table.id, scope))
    ):
        raise Forbidden(
            f"The rollout {rollout} is not yours to change.",
            why=f"It reaches devices outside your scope, {scope}.",
            fix="Ask somebody whose scope is larger.",
        )


def require_labels(labels: Mapping[str, str], scope: Selector) -> None:
    """Refuse labels that would put a device outside a scope.

    Raises:
        Forbidden: they would.
    """
    if not scope.matches(labels):
        said = ", ".join(f"{key}={value}" for key, value in sorted(labels.items())) or "no labels"
        raise Forbidden(
            f"A device with {said[:200]} would be outside your scope.",
            why=f"You see the devices with {scope}.",
            fix="Give it labels that your scope selects.",
        )


def _canonical(requirement: Requirement) -> str:
    """A requirement in one spelling: `site in (a,b)`."""
    values = tuple(sorted(set(requirement.values)))
    return str(msgspec.structs.replace(requirement, values=values))
