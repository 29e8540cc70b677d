"""The commands `edgeml releases gc` and `edgeml devices decommission`."""

from typing import Annotated

import typer

from fleet.commands.connection import (
    Why,
)
from fleet.commands.session import Session, command


@command
def gc(
    fleet: Session,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    keep: Annotated[
        int, typer.Option(min=1, help="How many of the newest releases of each model stay.")
    ] = 5,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="What was pushed or asked for in this time stays.")
    ] = 24.0,
    why: Why = "",
) -> None:
    """Remove from the registry what no release that is kept refers to.

    Kept is what is desired, running, in trial or gone back to on a device, what a rollout that is
    not finished needs, what is signed, and the newest releases of each model.
    """
    found = fleet.client.collect(dry_run=dry_run, keep=keep, grace_s=grace_hours * 3600, reason=why)
    verb = "would go" if dry_run else "are gone"
    gone = f"{len(found['removed'])} blobs, {found['removed_bytes']:,} bytes, {verb}"
    lines = [f"{gone}; {found['kept']}, {found['kept_bytes']:,} bytes, stay."]
    if found["in_grace"]:
        lines.append(f"{found['in_grace']} more were in use within {grace_hours:g} hours.")
    lines += [f"  without its blobs: {name}" for name in found["dropped_releases"]]
    fleet.show(found, "\n".join(lines))


@command
def decommission(
    fleet: Session,
    device: Annotated[str, typer.Argument(help="The device's id.")],
    *,
    wipe: Annotated[
        bool, typer.Option("--wipe", help="Have the device delete its keys and data first.")
    ] = False,
    why: Why = "",
) -> None:
    """End a device's service for good: revoked, and what may speak of people forgotten.

    With --wipe the device is told to delete its keys, releases and records; it is revoked when it
    has said that it will. For one that never answers, run this again without --wipe. Evidence and
    the audit log stay.
    """
    found = fleet.client.decommission(device, wipe=wipe, reason=why)
    if found["status"] == "done":
        text = f"{device} is revoked, and what it had sent of its place is deleted."
    else:
        text = (
            f"{device} is told to wipe itself ({found['command_status']}); it is revoked when it "
            f"has said so. Without waiting: edgeml devices decommission {device}"
        )
    fleet.show(found, text)
