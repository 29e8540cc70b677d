"""Which deltas the fleet makes: from what its devices really run, to what they are to run.

Made in the background by one thread of low priority; a device that asks before its delta is
there is offered none.
"""

import logging
import os
import threading
from collections.abc import Iterable, Iterator

from sqlalchemy import select

from cloud_sync.release import Release, Variant
from fleet.db import tables
from fleet.deltas import Deltas, Pair
from fleet.services.context import Services
from fleet.services.releases import document

log = logging.getLogger(__name__)

EVERY_S = 5.0
_NICE = 10
_NOT_ON_DEVICES = frozenset({"report", "recipe"})


def wanted(services: Services) -> list[Pair]:
    """The pairs of blobs that updates under way, or next, lead over."""
    model = tables.ReportedModel
    with services.database.read() as session:
        running = session.execute(
            select(model.model, model.running_release, model.running_variant)
            .join(tables.Device, tables.Device.id == model.device)
            .where(model.running_release != "", tables.Device.revoked_at.is_(None))
            .distinct()
        ).all()
        goals = set(session.scalars(select(tables.DesiredModel.release).distinct()))
        goals |= set(
            session.scalars(
                select(tables.Rollout.release).where(
                    tables.Rollout.finished_at.is_(None), tables.Rollout.release.is_not(None)
                )
            )
        )
        rows = session.scalars(select(tables.Release).order_by(tables.Release.created_at.desc()))
        releases = {row.digest: document(row) for row in rows}
    newest = {release.model: digest for digest, release in reversed(releases.items())}
    goals |= set(newest.values())
    found = [
        pair
        for name, release, variant in running
        if release in releases
        for goal in sorted(goals - {release})
        if goal in releases and releases[goal].model == name
        for pair in pairs(releases[release], variant, releases[goal])
    ]
    return list(dict.fromkeys(found))


def pairs(running: Release, variant: str, goal: Release) -> Iterator[Pair]:
    """The files of a running variant, with what stands in their place in another release.

    Of the other release, the variants of the same target.
    """
    before = [v for v in running.variants if v.digest == variant]
    for old in before:
        for new in goal.variants:
            if new.target == old.target:
                yield from _files(old, new)


def _files(old: Variant, new: Variant) -> Iterable[Pair]:
    digests = {file.role: file.digest for file in old.files}
    return [
        Pair(digests[file.role], file.digest)
        for file in new.files
        if file.role not in _NOT_ON_DEVICES
        and file.role in digests
        and digests[file.role] != file.digest
    ]


class DeltaMaker:
    """Makes what is due, for as long as the fleet is up."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._deltas = Deltas(services.registry)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="deltas", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._deltas.prepare()
        self._thread.start()

    def stop(self) -> None:
        """End, leaving what is half-made."""
        self._stop.set()
        self._thread.join()

    def turn(self) -> int:
        """Make what is due now; returns how many pairs were tried."""
        due = [pair for pair in wanted(self._services) if self._deltas.is_due(pair)]
        for pair in due:
            made = self._deltas.make(pair, self._pause)
            kept = "kept" if made.digest else "not worth it"
            log.info(
                "delta to %s: %d of %d bytes, %s", pair.target[:15], made.size, made.full, kept
            )
            self._services.counters.add("deltas.made" if made.digest else "deltas.not-worth-it")
        return len(due)

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._stop.is_set():
            try:
                self.turn()
            except _Stopped:
                return
            except Exception:
                log.exception("deltas could not be made")
            self._stop.wait(EVERY_S)

    def _pause(self) -> None:
        if self._stop.is_set():
            raise _Stopped


class _Stopped(Exception):  # noqa: N818 -- no error: the fleet ends
    """The fleet ends."""
