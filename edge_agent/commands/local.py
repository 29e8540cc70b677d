"""A release in a folder, made ready to run here without a fleet and without an enrolment."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from cloud_sync.messages import DesiredModel
from cloud_sync.release import Layout, Release, Variant, resolve
from edge_agent.execution import Execution, executions
from edge_agent.store import ReleaseStore
from edgeml.errors import DeviceError
from hardware.capabilities import Capabilities
from hardware.probes import probe


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run a release here: a variant, and how."""

    variant: Variant
    execution: Execution


class LocalRelease(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in the folder: every way to run it here, the one of a device first."""

    release: Release
    store: ReleaseStore
    capabilities: Capabilities
    ways: tuple[Way, ...]

    def desired(self, variant: Variant) -> DesiredModel:
        """As a fleet would name it."""
        return DesiredModel(
            release=self.release.digest,
            variant=variant.digest,
            release_version=self.release.version,
        )


@contextmanager
def local_release(
    folder: Path, *, version: str = "", runtime: str = "", threads: int = 0
) -> Iterator[LocalRelease]:
    """Open a release folder; nothing is written into it.

    Args:
        folder: that `edgeml convert --out` wrote.
        version: of the release, where the folder has several.
        runtime: the only one to use; any that a variant names by default.
        threads: the only number to use; 0 for any.

    Raises:
        ReleaseError: the folder holds no such release.
        DeviceError: no variant of it fits this machine, or not with that runtime.
    """
    layout = Layout.open(folder)
    release = layout.release(version or None)
    capabilities = probe()
    resolution = resolve(release, capabilities)
    if resolution.variant is None:
        raise DeviceError(
            f"{release.name} cannot run on this machine.",
            why=resolution.reason,
            fix="Convert it for this kind of machine: edgeml convert --target, or install a "
            "runtime that it names.",
        )
    cpus = len(os.sched_getaffinity(0))
    ways = [
        Way(variant=variant, execution=execution)
        for variant in _fitting(release, capabilities)
        for execution in executions(variant, capabilities, cpus=cpus, threads=threads)
    ]
    wanted = tuple(way for way in ways if runtime in {"", way.execution.runtime})
    if not wanted:
        names = ", ".join(dict.fromkeys(way.execution.runtime for way in ways))
        raise DeviceError(
            f"{release.name} does not run on {runtime} here.",
            why=f"No variant of it that fits this machine does; they run on {names}.",
            fix="Choose one of these, or install that runtime where a variant is made for it.",
        )
    with tempfile.TemporaryDirectory(prefix="edgeml-") as scratch:
        (Path(scratch) / "blobs").symlink_to((folder / "blobs").resolve())
        yield LocalRelease(
            release=release,
            store=ReleaseStore(Path(scratch)),
            capabilities=capabilities,
            ways=wanted,
        )


def _fitting(release: Release, capabilities: Capabilities) -> Iterator[Variant]:
    """Every variant for this machine, in the order in which a device would take them."""
    left = release
    while (best := resolve(left, capabilities).variant) is not None:
        yield best
        others = tuple(variant for variant in left.variants if variant is not best)
        left = msgspec.structs.replace(left, variants=others)
