"""Labels of many devices changed together: one transaction, an entry of the audit log for each."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import delete, select

from edgeml.errors import UserError
from fleet.access.scope import require_device, require_labels
from fleet.db import tables
from fleet.rollouts.selector import check_labels
from fleet.services import configuration, desired, devices
from fleet.services.audit import append, sync_head
from fleet.services.context import Caller, Services

MOST = 500


def change(
    services: Services,
    caller: Caller,
    names: Sequence[str],
    put: Mapping[str, str],
    drop: Collection[str] = (),
) -> int:
    """Set some labels of devices and take others away; returns how many devices it changed.

    Args:
        services: the fleet.
        caller: who and why.
        names: up to `MOST` devices; whoever has more asks again.
        put: labels to set.
        drop: keys of labels to take away.

    Raises:
        UserError: a label is not allowed, or there are too many devices.
        Forbidden: a device would be outside the caller's scope.
        NotFound: there is no such device in the caller's scope.
    """
    if len(names) > MOST:
        raise UserError(
            f"{len(names)} devices are too many at once.", why=f"The most is {MOST}.",
            fix="Ask several times.",
        )  # fmt: skip
    put = check_labels(put)
    changed = []
    with services.database.write() as session:
        before = devices.labels_of(session, names)
        for name in sorted(names):
            require_device(session, name, caller.scope)
            old = before.get(name, {})
            new = check_labels({k: v for k, v in old.items() if k not in drop} | put)
            if new == old:
                continue
            require_labels(new, caller.scope)
            table = tables.DeviceLabel
            session.execute(
                select(tables.Device.id)
                .where(tables.Device.id == name)
                .with_for_update(key_share=True)
            )
            session.execute(delete(table).where(table.device == name))
            session.add_all(table(device=name, key=key, value=new[key]) for key in new)
            append(services, session, caller, "device.label", name, labels=new)
            changed.append(name)
        envelopes = configuration.refresh_and_sign(services, session, changed)
    if changed:
        sync_head(services)
        services.changes.announce()
        desired.publish(services, envelopes, patient=True)
    return len(changed)
