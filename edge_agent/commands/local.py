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


class LocalRelease(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in the folder: the variant for this machine and every way to run it."""

    release: Release
    variant: Variant
    store: ReleaseStore
    capabilities: Capabilities
    executions: tuple[Execution, ...]

    @property
    def desired(self) -> DesiredModel:
        """As a fleet would name it."""
        return DesiredModel(
            release=self.release.digest,
            variant=self.variant.digest,
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
        runtime: the only one to use; any that the variant names by default.
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
    ways = executions(
        resolution.variant,
        capabilities,
        cpus=len(os.sched_getaffinity(0)),
        threads=threads,
    )
    fitting = tuple(way for way in ways if runtime in {"", way.runtime})
    if not fitting:
        names = ", ".join(dict.fromkeys(way.runtime for way in ways))
        raise DeviceError(
            f"{release.name} does not run on {runtime} here.", why=f"It can run on {names}."
        )
    with tempfile.TemporaryDirectory(prefix="edgeml-") as scratch:
        (Path(scratch) / "blobs").symlink_to((folder / "blobs").resolve())
        yield LocalRelease(
            release=release,
            variant=resolution.variant,
            store=ReleaseStore(Path(scratch)),
            capabilities=capabilities,
            executions=fitting,
        )
