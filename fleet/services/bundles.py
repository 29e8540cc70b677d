"""What a device without a network needs: its signed state, TUF's files, and which blobs."""

from sqlalchemy.orm import Session

from cloud_sync.messages import DesiredModel
from cloud_sync.release.closure import documents, on_devices
from fleet.db import tables
from fleet.problem import Conflict, NotFound
from fleet.resources import BundleBlob, BundleContents
from fleet.services import desired, trust
from fleet.services.audit import audited
from fleet.services.context import Caller, Services


def contents(services: Services, caller: Caller, device: str) -> BundleContents:
    """What to write onto a stick for a device.

    Raises:
        NotFound: there is no such device.
        Conflict: it is revoked, or nothing is wanted of it.
        TrustError: a release that is wanted is not signed.
        ReleaseError: a release is incomplete in the registry.
    """
    with audited(services, caller, "device.export", device) as session:
        row = session.get(tables.Device, device)
        if row is None:
            raise NotFound(
                f"There is no device {device[:64]!r}.", fix="See them all: edgeml devices list"
            )
        if row.revoked_at is not None:
            raise Conflict(
                f"{device} gets no bundle.",
                why="It is revoked.",
                fix=f"Enrol it again: edgeml fleet enroll {device}",
            )
        envelope, models = _wanted(services, session, device)
    blobs: dict[str, BundleBlob] = {}
    for model, wanted in models.items():
        trust.require_signed(services, model, wanted.release_version, wanted.release)
        for digest, size in _needed(services, wanted).items():
            blobs[digest] = {"model": model, "digest": digest, "size": size}
    return {
        "device": device,
        "created_at": services.now(),
        "envelope": envelope.decode(),
        "models": {model: wanted.release_version for model, wanted in models.items()},
        "trust": _trust_files(services),
        "blobs": sorted(blobs.values(), key=lambda blob: blob["digest"]),
    }


def _wanted(
    services: Services, session: Session, device: str
) -> tuple[bytes, dict[str, DesiredModel]]:
    envelope = desired.current(services, session, device)
    models = desired.models(session, device)
    if envelope is None or not models:
        raise Conflict(
            f"Nothing is wanted of {device}.",
            why="No rollout has reached it, or it has not said hello since a restore.",
            fix=f"Roll a release out to it: edgeml rollout create --selector ... ; then "
            f"edgeml devices show {device}",
        )
    return envelope, models


def _needed(services: Services, wanted: DesiredModel) -> dict[str, int]:
    registry = services.registry
    release = registry.release(wanted.release)
    read = documents(registry.blobs.read, release)
    sizes = {digest: registry.blobs.path(digest).stat().st_size for digest in read}
    return sizes | on_devices(release.variant(wanted.variant))


def _trust_files(services: Services) -> dict[str, str]:
    """All that a device could be served; the timestamp first: what it names is still there."""
    folder = services.trust.store.folder
    if not services.trust.is_initialised:
        return {}
    names = ["metadata/timestamp.json"]
    for part in ("metadata", "targets"):
        found = sorted(p for p in (folder / part).rglob("*") if p.is_file())
        names += [p.relative_to(folder).as_posix() for p in found]
    files: dict[str, str] = {}
    for name in dict.fromkeys(names):
        data = services.trust.store.file(name)
        if data is not None:
            files[name] = data.decode()
    return files
