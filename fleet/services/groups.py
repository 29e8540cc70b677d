"""What the engine must know of devices that switch together: their group, and whether they can."""

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import select
from sqlalchemy.orm import Session

from cloud_sync.messages import Feature
from fleet.db import tables
from fleet.rollouts import DeviceObservation, Policy
from fleet.rollouts.groups import left_out

TOO_OLD = "its agent is too old to prepare a release and wait for its group; update the agent"


def labels(session: Session, policy: Policy) -> Mapping[str, str]:
    """The group of each device that has the policy's label."""
    if policy.together is None:
        return {}
    table = tables.DeviceLabel
    query = select(table.device, table.value).where(table.key == policy.together.label)
    return {device: value for device, value in session.execute(query)}  # noqa: C416 -- rows


def fresh(seen: DeviceObservation, row: Any, grouped: Mapping[str, str]) -> DeviceObservation:
    """A device that has no part in a rollout yet, with its group; one that cannot wait is unfit.

    Args:
        seen: the device.
        row: its row, with `features`.
        grouped: what `labels` found.
    """
    group = grouped.get(seen.device, "")
    if not group:
        return seen
    if seen.variant and Feature.PREPARE not in row.features.split():
        return msgspec.structs.replace(seen, group=group, variant="", unfit=TOO_OLD)
    return msgspec.structs.replace(seen, group=group)


def planned(policy: Policy, devices: list[DeviceObservation]) -> list[DeviceObservation]:
    """The devices as a plan shows them: those whose group cannot switch get nothing."""
    if policy.together is None:
        return devices
    out = left_out(policy.together, devices)
    return [
        msgspec.structs.replace(d, variant="", unfit=out[d.device]) if d.device in out else d
        for d in devices
    ]
