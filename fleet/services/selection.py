"""Label selectors as SQL: the database chooses the devices, whatever their number."""

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, case, cast, exists, true
from sqlalchemy.orm import aliased

from fleet.db import tables
from fleet.rollouts.selector import Requirement, Selector

_INTEGER = r"^-?[0-9]{1,18}$"


def chosen(selector: Selector, device: Any = tables.Device.id) -> ColumnElement[bool]:
    """The condition that a column's device is one that a selector chooses."""
    return and_(true(), *(_meets(device, requirement) for requirement in selector.requirements))


def _meets(device: Any, requirement: Requirement) -> ColumnElement[bool]:
    label = aliased(tables.DeviceLabel)
    of_key = and_(label.device == device, label.key == requirement.key)
    match requirement.operator:
        case "in":
            return exists().where(of_key, label.value.in_(requirement.values))
        case "notin":
            return ~exists().where(of_key, label.value.in_(requirement.values))
        case "exists":
            return exists().where(of_key)
        case "absent":
            return ~exists().where(of_key)
        case "gt" | "lt":
            # Only what is an integer is ever cast: the order within AND is the database's own.
            number = case(
                (label.value.regexp_match(_INTEGER), cast(label.value, BigInteger)), else_=None
            )
            bound = int(requirement.values[0])
            above = number > bound if requirement.operator == "gt" else number < bound
            return exists().where(of_key, above)
