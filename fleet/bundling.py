"""Writes a bundle (`cloud_sync.bundle`) from what the fleet's API gives."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from cloud_sync import bundle
from cloud_sync.release import Blobs
from cloud_sync.release.blobs import sync_folder
from edgeml.errors import UserError
from fleet.client import FleetClient


def export(
    client: FleetClient, device: str, out: Path, reason: str, on_blob: Callable[[str, int], None]
) -> bundle.BundleInfo:
    """Write a device's bundle to a folder, or to a file whose name ends in `.tar`.

    It is there whole or not at all. What a broken export has fetched is kept beside it, and the
    next one goes on from there.

    Raises:
        UserError: the place is taken or cannot be written.
        EdgemlError: the fleet refuses, or cannot be reached.
    """
    if out.exists():
        raise UserError(f"{out} is there already.", fix="Name another place with --out.")
    contents = client.bundle(device, reason)
    info = bundle.BundleInfo(
        device=contents["device"],
        created_at=contents["created_at"],
        models=contents["models"],
        files=len(contents["blobs"]) + len(contents["trust"]) + 2,
    )
    beside = out.with_name(f".{out.name}.export")
    try:
        beside.mkdir(parents=True, exist_ok=True)
        _only(beside, {blob["digest"] for blob in contents["blobs"]})
        blobs = Blobs(beside)
        for blob in contents["blobs"]:
            client.fetch_blob(blob["model"], blob["digest"], blob["size"], blobs)
            on_blob(blob["digest"], blob["size"])
        trust = {name: text.encode() for name, text in contents["trust"].items()}
        bundle.complete(beside, info, contents["envelope"].encode(), trust)
        if out.suffix == ".tar":
            bundle.pack(beside, out)
            shutil.rmtree(beside)
        else:
            os.replace(beside, out)
            sync_folder(out.parent)
    except OSError as error:
        raise UserError(
            f"The bundle cannot be written to {out}.",
            why=f"{error.strerror or error}.",
            fix="Check the stick's room and whether it is writable.",
        ) from error
    return info


def _only(folder: Path, digests: set[str]) -> None:
    """Remove what an earlier, broken export of something else has left."""
    shutil.rmtree(folder / "trust", ignore_errors=True)
    blobs = Blobs(folder)
    for digest in blobs.all():
        if digest not in digests:
            blobs.remove(digest)
