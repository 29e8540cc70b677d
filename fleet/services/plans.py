"""The plan of a rollout: for every device selected, what it would get, and what that would cost it.

A few queries, however many devices there are; what is alike is worked out once: resolution for each
kind of capabilities, bytes for each pair of what a device has and what it would get.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cloud_sync.data_budget import bounds, cost, month_of
from cloud_sync.messages import Configuration, DataBudget
from cloud_sync.release import Release, Variant
from cloud_sync.release.closure import on_devices
from cloud_sync.windows import UpdateWindow, told
from fleet.db import tables
from fleet.deltas import Deltas
from fleet.prices import Prices
from fleet.resources import Plan, PlannedDevice
from fleet.rollouts import DeviceObservation, Policy
from fleet.rollouts.opening import in_vain, told_in_vain
from fleet.rollouts.units import Unit, unit
from fleet.services import observations, releases
from fleet.services.context import Services
from fleet.services.cost import prices_of, total_money
from fleet.services.devices import ONLINE_S, labels_of

_NOTHING_FITS = "nothing fits"


class Fetch(msgspec.Struct, frozen=True):
    """What a device must fetch, in bytes: in all, and how much of it comes as differences."""

    size: int
    by_delta: int = 0


class Room(msgspec.Struct, frozen=True):
    """What is left of a device's data budget for this rollout; None is no bound."""

    left: int | None = None
    whose: str = ""


def plan(
    services: Services,
    model: str,
    version: str,
    policy: Policy,
    *,
    after: str = "",
    limit: int | None = None,
) -> Plan:
    """What a rollout would do: for every device selected, its variant or why nothing fits.

    Args:
        services: the fleet.
        model: of the release.
        version: of the release.
        policy: chooses the devices, and may bound what each is to spend.
        after: the last device of the page before.
        limit: devices of a page; None for all. What is summed up is over all in any case.

    Raises:
        NotFound: the release is not registered.
        UserError: the selector cannot be read.
    """
    with services.database.read() as session:
        row = releases.require(session, model, version)
        release = releases.document(row)
        seen = observations.of_release(session, release, policy)
        reckoning = _Reckoning(services, session, release, policy)
        reckoning.notice_in_vain(seen)
        planned = [reckoning.device(device) for device in seen]
    rows = [device for device in planned if device["device"] > after]
    page = rows if limit is None else rows[:limit]
    fitting = [device for device in planned if device["variant"]]
    return {
        "model": model,
        "version": version,
        "release": row.digest,
        "selector": policy.selector,
        "devices": page,
        "next": page[-1]["device"] if page and len(page) < len(rows) else None,
        "fitting": len(fitting),
        "unfitting": len(planned) - len(fitting),
        "over_budget": sum(not device["in_budget"] for device in fitting),
        "bytes": sum(device["bytes"] for device in fitting),
        "cost_bytes": sum(device["cost_bytes"] for device in fitting),
        "currency": reckoning.prices.currency,
        "money": total_money([device["money"] for device in fitting]),
        "by_class": _by_class(release, planned),
        "reasons": dict(Counter(d["reason"] for d in planned if not d["variant"]).most_common()),
    }


def _by_class(release: Release, planned: list[PlannedDevice]) -> dict[str, dict[str, int]]:
    names = {variant.digest: variant.name for variant in release.variants}
    counts: dict[str, Counter[str]] = {}
    for device in planned:
        name = names.get(device["variant"] or "", _NOTHING_FITS)
        counts.setdefault(device["hardware_class"], Counter())[name] += 1
    return {name: dict(counted) for name, counted in sorted(counts.items())}


class _Reckoning:
    """What a release costs each device, with all that the database knows of them at hand."""

    def __init__(
        self, services: Services, session: Session, release: Release, policy: Policy
    ) -> None:
        self._release = release
        self._policy = policy
        self._now = services.now()
        self._deltas = Deltas(services.registry)
        self._running, self._files = _running(session)
        self._online = _online(session, self._now)
        self._budgets = _budgets(session)
        self._spent = _spent(session, [d for d, b in self._budgets.items() if b.month_bytes])
        self._known: dict[tuple[str, frozenset[str]], Fetch] = {}
        self.prices: Prices = prices_of(session)
        self._labels = labels_of(session) if self.prices.prices else {}
        self._in_vain: dict[str, str] = {}

    def notice_in_vain(self, seen: Sequence[DeviceObservation]) -> None:
        """Note which devices wait for ever, since no time is in all of their windows."""
        groups: dict[Unit, list[DeviceObservation]] = {}
        for device in in_vain(self._policy, (d for d in seen if d.variant), self._now):
            groups.setdefault(unit(device), []).append(device)
        for members in groups.values():
            why = told_in_vain(self._policy, members)
            self._in_vain |= dict.fromkeys((device.device for device in members), why)

    def device(self, seen: DeviceObservation) -> PlannedDevice:
        """The line of one device."""
        variant = self._release.variant(seen.variant) if seen.variant else None
        fetch = self._fetch(seen.device, variant) if variant else Fetch(0)
        wire = cost(fetch.size)
        room = self._room(seen.device)
        in_budget = room.left is None or wire <= room.left
        money = self.prices.money(wire, self._labels.get(seen.device, {})) if variant else None
        return {
            "device": seen.device,
            "hardware_class": seen.hardware_class,
            "online": seen.device in self._online,
            "variant": seen.variant or None,
            "target": variant.target if variant else None,
            "precision": variant.precision if variant else None,
            "verification": variant.verification if variant else None,
            "bytes": fetch.size,
            "full_bytes": sum(on_devices(variant).values()) if variant else 0,
            "delta_bytes": fetch.by_delta,
            "cost_bytes": wire,
            "budget_left": room.left,
            "in_budget": in_budget,
            "money": money,
            "reason": seen.unfit
            or _vain(variant, self._in_vain.get(seen.device, ""))
            or _said(variant, wire, room, seen.windows, in_budget=in_budget),
        }

    def _fetch(self, device: str, variant: Variant) -> Fetch:
        running = self._running.get(device, frozenset())
        key = (variant.digest, running)
        if key not in self._known:
            here = frozenset[str]().union(*(self._files.get(v, frozenset()) for v in running))
            self._known[key] = self._needed(variant, here)
        return self._known[key]

    def _needed(self, variant: Variant, here: frozenset[str]) -> Fetch:
        size = by_delta = 0
        for digest, full in on_devices(variant).items():
            if digest in here:
                continue
            offers = [o.size for o in self._deltas.offers(digest).offers if o.base in here]
            size += min(offers, default=full)
            by_delta += min(offers, default=0)
        return Fetch(size, by_delta)

    def _room(self, device: str) -> Room:
        own = self._budgets.get(device, DataBudget())
        bound = bounds(own, self._policy.limits.data_budget_bytes)
        rooms = []
        if bound.rollout_bytes is not None:
            rooms.append(Room(bound.rollout_bytes, "a rollout"))
        if bound.month_bytes is not None:
            spent = self._spent.get((device, month_of(self._now, bound.month_begins)), 0)
            rooms.append(Room(max(0, bound.month_bytes - spent), "this month"))
        return min(rooms, key=lambda room: room.left or 0, default=Room())


def _vain(variant: Variant | None, why: str) -> str:
    return f"It would get {variant.name}, but {why}." if variant and why else ""


def _said(
    variant: Variant | None,
    wire: int,
    room: Room,
    windows: Sequence[UpdateWindow],
    *,
    in_budget: bool,
) -> str:
    if variant is None:
        return ""
    at = f" in its update window ({told(windows)})" if windows else ""
    if in_budget:
        return f"It gets {variant.name}{at}."
    left = (room.left or 0) / 1e6
    return (
        f"It gets {variant.name}{at} once its data budget allows: about {wire / 1e6:.2f} MB are "
        f"needed, {left:.2f} MB are left for {room.whose}."
    )


def _running(session: Session) -> tuple[dict[str, frozenset[str]], dict[str, frozenset[str]]]:
    """The variants that each device runs, and the files of each of these."""
    table = tables.ReportedModel
    query = select(table.device, table.running_release, table.running_variant)
    running: dict[str, set[str]] = {}
    needed: set[str] = set()
    for device, release, variant in session.execute(query.where(table.running_variant != "")):
        running.setdefault(device, set()).add(variant)
        needed.add(release)
    files = {
        variant.digest: frozenset(on_devices(variant))
        for digest in sorted(needed)
        if (row := session.get(tables.Release, digest)) is not None
        for variant in releases.document(row).variants
    }
    return {device: frozenset(variants) for device, variants in running.items()}, files


def _online(session: Session, now: float) -> set[str]:
    table = tables.Device
    return set(
        session.scalars(select(table.id).where(table.online, table.last_seen > now - ONLINE_S))
    )


def _budgets(session: Session) -> dict[str, DataBudget]:
    """The data budgets of the devices that have one; configurations are mostly alike."""
    table = tables.Device
    known: dict[str, DataBudget] = {}
    found: dict[str, DataBudget] = {}
    for device, text in session.execute(select(table.id, table.configuration)):
        if text not in known:
            known[text] = msgspec.json.decode(text, type=Configuration).data_budget
        found[device] = known[text]
    return {device: budget for device, budget in found.items() if budget != DataBudget()}


def _spent(session: Session, devices: list[str]) -> Mapping[tuple[str, str], int]:
    """What devices with a monthly bound spent, by device and month."""
    if not devices:
        return {}
    table = tables.LedgerEntry
    query = select(table.device, table.month, func.sum(table.sent + table.received)).group_by(
        table.device, table.month
    )
    bounded = set(devices)
    return {
        (device, month): int(total)
        for device, month, total in session.execute(query)
        if device in bounded
    }
