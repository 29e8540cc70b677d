"""The devices counted: by hardware class, what they run, and a label. A query for each."""

from sqlalchemy import case, func, select
from typing_extensions import TypedDict

from fleet.db import tables
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.services.context import Services
from fleet.services.devices import ONLINE_S
from fleet.services.selection import chosen


class ClassCount(TypedDict):
    """The devices of a hardware class, and how many of them are online."""

    hardware_class: str
    devices: int
    online: int


class RunningCount(TypedDict):
    """The devices of a hardware class that run a release of a model, and how many update it."""

    model: str
    version: str
    hardware_class: str
    devices: int
    updating: int


class LabelCount(TypedDict):
    """The devices that have a value of a label, empty for those without it, and those online."""

    value: str
    devices: int
    online: int


class Census(TypedDict):
    """The devices of a scope, counted; revoked ones count as any other.

    `labels` counts by the values of one label, where one was asked for; at most `MAX_VALUES`.
    """

    devices: int
    online: int
    classes: list[ClassCount]
    running: list[RunningCount]
    labels: list[LabelCount]


MAX_VALUES = 1000
_AT_REST = ("", "idle", "committed", "refused", "rolled_back")


def census(
    services: Services,
    scope: Selector = EVERYTHING,
    *,
    selector: Selector = EVERYTHING,
    label: str = "",
) -> Census:
    """Count the devices of a scope that a selector chooses; the most frequent first.

    Args:
        services: the fleet.
        scope: whose devices.
        selector: which of them.
        label: the key of a label whose values are counted, too.
    """
    device, said = tables.Device, tables.ReportedModel
    is_there = device.online & (device.last_seen > services.now() - ONLINE_S)
    wanted = chosen(scope) & chosen(selector)
    by_class = (
        select(
            device.hardware_class,
            func.count().label("devices"),
            func.sum(case((is_there, 1), else_=0)),
        )
        .where(wanted)
        .group_by(device.hardware_class)
        .order_by(func.count().desc(), device.hardware_class)
    )
    of_model = (said.model, said.running_version, device.hardware_class)
    running = (
        select(
            *of_model,
            func.count(),
            func.sum(case((said.phase.not_in(_AT_REST), 1), else_=0)),
        )
        .join(device, device.id == said.device)
        .where(wanted, said.running_version != "")
        .group_by(*of_model)
        .order_by(func.count().desc(), *of_model)
    )
    labelled = tables.DeviceLabel
    value = func.coalesce(labelled.value, "")
    by_label = (
        select(value, func.count(), func.sum(case((is_there, 1), else_=0)))
        .select_from(device)
        .outerjoin(labelled, (labelled.device == device.id) & (labelled.key == label))
        .where(wanted)
        .group_by(value)
        .order_by(func.count().desc(), value)
        .limit(MAX_VALUES)
    )
    with services.database.read() as session:
        labels: list[LabelCount] = [
            {"value": name, "devices": count, "online": int(online or 0)}
            for name, count, online in (session.execute(by_label) if label else ())
        ]
        classes: list[ClassCount] = [
            {"hardware_class": name, "devices": count, "online": int(online or 0)}
            for name, count, online in session.execute(by_class)
        ]
        runs: list[RunningCount] = [
            {
                "model": model,
                "version": version,
                "hardware_class": name,
                "devices": count,
                "updating": int(updating or 0),
            }
            for model, version, name, count, updating in session.execute(running)
        ]
    return {
        "devices": sum(one["devices"] for one in classes),
        "online": sum(one["online"] for one in classes),
        "classes": classes,
        "running": runs,
        "labels": labels,
    }
