"""What rollouts cost: bytes as devices' kernels counted them, and money by the fleet's prices."""

from collections.abc import Mapping

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fleet.cost_resources import CostInfo, CostSummary, DeviceCost, PricesInfo
from fleet.db import tables
from fleet.prices import Prices, check_prices
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.services import facts
from fleet.services.audit import audited
from fleet.services.context import Caller, Services
from fleet.services.rollups import HOUR
from fleet.services.selection import chosen

_FACT = "prices"


def prices(services: Services) -> PricesInfo:
    """The prices of a megabyte."""
    with services.database.read() as session:
        return _shown(prices_of(session))


def set_prices(services: Services, caller: Caller, wanted: Mapping[str, object]) -> PricesInfo:
    """Replace the prices of a megabyte.

    Raises:
        UserError: a key or value is wrong.
    """
    checked = check_prices(wanted)
    shown = _shown(checked)
    with audited(services, caller, "prices.set", "prices", **shown) as session:
        facts.put(session, _FACT, msgspec.json.encode(checked).decode())
    return shown


def prices_of(session: Session) -> Prices:
    """The prices of a megabyte."""
    text = facts.get(session, _FACT)
    return msgspec.json.decode(text, type=Prices) if text else Prices()


def of_rollout(services: Services, rollout: str, scope: Selector = EVERYTHING) -> CostInfo:
    """What a rollout cost so far, in all and each device, the most expensive first."""
    with services.database.read() as session:
        return in_session(session, rollout, scope)


def summary(session: Session, rollout: str, scope: Selector = EVERYTHING) -> CostSummary:
    """What a rollout cost so far, in all."""
    found = in_session(session, rollout, scope)
    return {
        "currency": found["currency"],
        "bytes": found["bytes"],
        "money": found["money"],
        "unpriced": found["unpriced"],
        "energy_per_inference_j": found["energy_per_inference_j"],
        "energy_devices": found["energy_devices"],
    }


def in_session(session: Session, rollout: str, scope: Selector = EVERYTHING) -> CostInfo:
    """`of_rollout` within a session."""
    table = tables.LedgerEntry
    spent = func.sum(table.sent + table.received)
    query = (
        select(table.device, spent)
        .where(table.rollout == rollout, chosen(scope, table.device))
        .group_by(table.device)
        .order_by(spent.desc(), table.device)
    )
    known = prices_of(session)
    rows = [(device, int(total)) for device, total in session.execute(query)]
    labels = _labels(session, rollout) if known.prices else {}
    devices: list[DeviceCost] = [
        {"device": d, "bytes": total, "money": known.money(total, labels.get(d, {}))}
        for d, total in rows
    ]
    joules, inferred, measuring = _energy(session, rollout, scope)
    return {
        "currency": known.currency,
        "energy_per_inference_j": joules / inferred if inferred else None,
        "energy_devices": measuring,
        "bytes": sum(total for _, total in rows),
        "money": total_money([device["money"] for device in devices]),
        "unpriced": sum(device["money"] is None for device in devices),
        "devices": devices,
    }


def total_money(parts: list[float | None]) -> float | None:
    """The sum of what is known; None where nothing is.

    >>> total_money([1.0, None]), total_money([None])
    (1.0, None)
    """
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def _energy(session: Session, rollout: str, scope: Selector) -> tuple[float, int, int]:
    """The joules that its devices used with its release, for how many inferences; the devices."""
    row, place, of = tables.DeviceRollUp, tables.Assignment, tables.Rollout
    query = (
        select(
            func.sum(row.energy_j), func.sum(row.energy_inferred), func.count(row.device.distinct())
        )
        .join(place, place.device == row.device)
        .join(of, of.id == place.rollout)
        .where(
            of.id == rollout,
            row.model == of.model,
            row.release == of.release,
            row.begins_at > of.started_at - HOUR,
            row.energy_inferred > 0,
            chosen(scope, row.device),
        )
    )
    joules, inferred, measuring = session.execute(query).one()
    return float(joules or 0.0), int(inferred or 0), int(measuring)


def _labels(session: Session, rollout: str) -> dict[str, dict[str, str]]:
    label, entry = tables.DeviceLabel, tables.LedgerEntry
    spenders = select(entry.device).where(entry.rollout == rollout)
    found: dict[str, dict[str, str]] = {}
    for row in session.scalars(select(label).where(label.device.in_(spenders))):
        found.setdefault(row.device, {})[row.key] = row.value
    return found


def _shown(known: Prices) -> PricesInfo:
    return {
        "currency": known.currency,
        "prices": [{"selector": p.selector, "per_mb": p.per_mb} for p in known.prices],
    }
