"""The command `edgeml releases export`."""

from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.connection import (
    Why,
)
from fleet.commands.session import Session, command


@command
def export(
    fleet: Session,
    *,
    device: Annotated[str, typer.Option(help="The device that it is for.")],
    out: Annotated[Path, typer.Option(help="A new folder, or a new file whose name ends in .tar.")],
    why: Why = "",
) -> None:
    """Write what is wanted of a device onto a stick, for a device without a network.

    It holds the signed desired state, the releases' signatures and the blobs of the device's own
    variants. On the device: edgeml agent import. A bundle is good for as long as the state in it
    is (90 days), and until the device has taken a newer one.
    """
    import msgspec

    from fleet.bundling import export as write

    sizes: dict[str, int] = {}
    info = write(fleet.client, device, out, why, sizes.__setitem__)
    names = ", ".join(f"{model}:{version}" for model, version in info.models.items())
    text = f"{names} for {device}: {len(sizes)} blobs, {sum(sizes.values()):,} bytes, in {out}"
    fleet.show({**msgspec.to_builtins(info), "out": str(out)}, text)
