"""Garbage collection of the registry: what no release that is kept refers to goes.

Kept is every release that is desired, running or in trial on a device, the one that a device goes
back to, one of a rollout that is not finished, one that is signed, and the newest of each model.
A blob that was pushed, or asked for, within the grace is kept in any case: it belongs to a push
or to a download that is under way.
"""

import contextlib
from collections.abc import Iterable, Mapping

import msgspec
from sqlalchemy import select

from cloud_sync.messages import DesiredModel
from cloud_sync.release.closure import artifact, documents
from edgeml.errors import ReleaseError, UserError
from fleet.db import tables
from fleet.deltas import Deltas
from fleet.resources import CollectInfo
from fleet.services import trust
from fleet.services.audit import audited
from fleet.services.context import Caller, Services
from fleet.services.releases import document

GRACE_S = 86400.0
KEEP = 5
_SIGNED = frozenset({"signed", "waits for signatures"})


class Stored(msgspec.Struct, frozen=True):
    """A blob that is there: its bytes, and the seconds since it was last in use."""

    size: int
    age_s: float


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be removed, and what is garbage but within its grace."""

    remove: tuple[str, ...]
    in_grace: tuple[str, ...]


def decide(
    stored: Mapping[str, Stored], refers: Mapping[str, Iterable[str]], grace_s: float
) -> Decision:
    """What to remove: pure.

    Args:
        stored: the blobs that are there, by digest.
        refers: what each release or artifact that is kept refers to.
        grace_s: how long after its last use a blob stays in any case.
    """
    kept = {digest for blobs in refers.values() for digest in blobs}
    garbage = sorted(digest for digest in stored if digest not in kept)
    return Decision(
        remove=tuple(d for d in garbage if stored[d].age_s >= grace_s),
        in_grace=tuple(d for d in garbage if stored[d].age_s < grace_s),
    )


def collect(
    services: Services,
    caller: Caller,
    *,
    dry_run: bool = False,
    keep: int = KEEP,
    grace_s: float = GRACE_S,
) -> CollectInfo:
    """Remove the registry's garbage.

    Args:
        services: the fleet.
        caller: who and why.
        dry_run: only say what would go.
        keep: how many of the newest releases of each model stay in any case.
        grace_s: seconds after its last use for which a blob stays.

    Raises:
        UserError: a number is not allowed.
        ReleaseError: a release that is kept cannot be read; then nothing is removed.
    """
    if keep < 1 or grace_s < 0:
        raise UserError("At least the newest release of each model stays.", fix="Use --keep 1.")
    registry = services.registry
    # First what is there: what is pushed from here on is not looked at.
    stored = {}
    for digest in registry.blobs.all():
        with contextlib.suppress(FileNotFoundError):  # somebody else collects, too
            size = registry.blobs.path(digest).stat().st_size
            stored[digest] = Stored(size, registry.age_s(digest))
    kept, dropped = _releases(services, keep)
    refers = _refers(services, kept)
    deltas = Deltas(registry)
    alive = {digest for blobs in refers.values() for digest in blobs}
    made = deltas.all()
    useless = [pair for pair in made if not {pair.base, pair.target} <= alive]
    refers["deltas"] = {m.digest for p, m in made.items() if m.digest and p not in useless}
    decision = decide(stored, refers, grace_s)
    removed = list(decision.remove)
    if not dry_run:
        for pair in useless:
            deltas.forget(pair)
        removed = [digest for digest in decision.remove if registry.remove(digest, grace_s)]
        registry.prepare()
        with audited(services, caller, "registry.collect", "registry", blobs=len(removed)):
            pass
    freed = sum(stored[digest].size for digest in removed)
    return {
        "dry_run": dry_run,
        "removed": removed,
        "removed_bytes": freed,
        "kept": len(stored) - len(removed),
        "kept_bytes": sum(blob.size for blob in stored.values()) - freed,
        "dropped_releases": sorted(dropped),
        "in_grace": len(decision.in_grace),
    }


def _releases(services: Services, keep: int) -> tuple[list[tables.Release], list[str]]:
    """The registered releases that are kept, and the names of those that are not."""
    used = _used(services)
    standing = trust.standing(services)
    with services.database.read() as session:
        query = select(tables.Release).order_by(tables.Release.created_at.desc())
        rows = list(session.scalars(query))
    kept, dropped = [], []
    seen: dict[str, int] = {}
    for row in rows:
        seen[row.model] = number = seen.get(row.model, 0) + 1
        signed = standing(row.model, row.version) in _SIGNED
        if number <= keep or row.digest in used or signed:
            kept.append(row)
        elif services.registry.blobs.has(row.digest):
            dropped.append(f"{row.model}:{row.version}")
    return kept, dropped


def _used(services: Services) -> set[str]:
    """The releases that devices run, ran before, or are to run."""
    reported = tables.ReportedModel
    with services.database.read() as session:
        used = set(session.scalars(select(tables.DesiredModel.release)))
        for column in (reported.running_release, reported.release):
            used |= set(session.scalars(select(column).distinct()))
        unfinished = select(tables.Rollout.release).where(tables.Rollout.finished_at.is_(None))
        used |= set(session.scalars(unfinished))
        for previous in session.scalars(select(tables.Assignment.previous).distinct()):
            if previous and (found := msgspec.json.decode(previous, type=DesiredModel | None)):
                used.add(found.release)
    return used


def _refers(services: Services, kept: Iterable[tables.Release]) -> dict[str, set[str]]:
    """What each kept release refers to, with the evidence about it.

    Raises:
        ReleaseError: one cannot be read.
    """
    registry = services.registry
    found: dict[str, set[str]] = {}
    for row in kept:
        if not registry.blobs.has(row.digest):
            continue  # removed by an earlier collection, and pushed again by nobody
        release = document(row)
        files = {file.digest for variant in release.variants for file in variant.files}
        try:
            found[row.digest] = files | documents(registry.blobs.read, release)
            for entry in registry.referrers(row.model, row.digest):
                found[row.digest] |= artifact(registry.blobs.read, entry.digest)
        except ReleaseError as error:
            raise ReleaseError(
                "Nothing was removed.",
                why=f"{release.name} cannot be read: {error}",
                fix="Push it again: edgeml releases push",
            ) from error
    return found
