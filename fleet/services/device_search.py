"""Finding devices among many, in the database: by labels, name, state, hardware, what they run."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, exists, func, not_, select

from edgeml.errors import UserError
from fleet.db import tables
from fleet.resources import DeviceInfo, Page
from fleet.rollouts.selector import EVERYTHING, Selector, parse_selector
from fleet.services import devices
from fleet.services.context import Services
from fleet.services.selection import chosen

ONLINE, OFFLINE, REVOKED = "online", "offline", "revoked"
STATES = (ONLINE, OFFLINE, REVOKED)


@dataclass(frozen=True)
class Wanted:
    """Which devices are wanted; what is empty leaves nothing out.

    `name` is a part of the device's id, `state` one of `STATES`; `model`, `version` and `phase` are
    of one model that the device reports.
    """

    selector: str = ""
    name: str = ""
    state: str = ""
    hardware_class: str = ""
    model: str = ""
    version: str = ""
    phase: str = ""


def find(
    services: Services,
    wanted: Wanted,
    *,
    after: str = "",
    limit: int = 100,
    scope: Selector = EVERYTHING,
) -> Page[DeviceInfo]:
    """A page of the devices of a scope that are wanted, by name.

    Raises:
        UserError: the selector cannot be read, or there is no such state.
    """
    where = _where(wanted, services.now())
    return devices.list_devices(
        services, selector=wanted.selector, after=after, limit=limit, scope=scope, where=where
    )


def count(services: Services, wanted: Wanted, scope: Selector = EVERYTHING) -> int:
    """How many devices of a scope are wanted.

    Raises:
        UserError: the selector cannot be read, or there is no such state.
    """
    query = select(func.count()).select_from(tables.Device).where(*_all(services, wanted, scope))
    with services.database.read() as session:
        return session.scalar(query) or 0


def names(services: Services, wanted: Wanted, scope: Selector = EVERYTHING) -> list[str]:
    """The ids of all devices of a scope that are wanted, in order.

    Raises:
        UserError: the selector cannot be read, or there is no such state.
    """
    table = tables.Device
    query = select(table.id).where(*_all(services, wanted, scope)).order_by(table.id)
    with services.database.read() as session:
        return list(session.scalars(query))


def hardware_classes(services: Services, scope: Selector = EVERYTHING) -> list[str]:
    """The hardware classes that devices of a scope have, by name."""
    table = tables.Device
    query = select(table.hardware_class).where(table.hardware_class != "", chosen(scope))
    with services.database.read() as session:
        return list(session.scalars(query.distinct().order_by(table.hardware_class)))


def _all(services: Services, wanted: Wanted, scope: Selector) -> tuple[ColumnElement[bool], ...]:
    selector = chosen(parse_selector(wanted.selector))
    return (selector, chosen(scope), *_where(wanted, services.now()))


def _where(wanted: Wanted, now: float) -> tuple[ColumnElement[bool], ...]:
    table, said = tables.Device, tables.ReportedModel
    found: list[ColumnElement[bool]] = []
    if wanted.name:
        found.append(table.id.contains(wanted.name, autoescape=True))
    if wanted.hardware_class:
        found.append(table.hardware_class == wanted.hardware_class)
    if wanted.state:
        found.append(_is(wanted.state, now))
    of_model = {
        said.model: wanted.model,
        said.running_version: wanted.version,
        said.phase: wanted.phase,
    }
    reported = [column == value for column, value in of_model.items() if value]
    if reported:
        found.append(exists().where(said.device == table.id, *reported))
    return tuple(found)


def _is(state: str, now: float) -> ColumnElement[bool]:
    table = tables.Device
    there = and_(table.online, func.coalesce(table.last_seen, 0.0) > now - devices.ONLINE_S)
    match state:
        case "online":
            return there
        case "offline":
            return and_(not_(there), table.revoked_at.is_(None))
        case "revoked":
            return table.revoked_at.is_not(None)
    raise UserError(f"There is no state {state[:40]!r}.", why=f"There are {', '.join(STATES)}.")
