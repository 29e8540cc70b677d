"""What a toolchain is, as data: `converters/toolchains/definitions/*.toml`, or a backend's own.

A backend's is `toolchain*.toml` in its folder of `converters/backends`, beside its runner.

A definition names every package that is installed, with its version, dependencies included:
nothing else comes in. Its digest is the toolchain's version, so that what was installed from
another definition never counts as this one.
"""

import difflib
import hashlib
import platform
import tomllib
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec

from edgeml.errors import ToolchainError

RUNNERS = Path(str(files("converters.toolchains") / "runners"))
BACKENDS = RUNNERS.parents[1] / "backends"
_VERSION_DIGITS = 32


class DebianPackages(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Packages of Debian that are unpacked into a folder; nothing is installed on the machine.

    `architecture` is Debian's name, empty for the machine's own. `only` keeps just these
    files. `into` is a folder of the toolchain.
    """

    packages: tuple[str, ...]
    architecture: str = ""
    dependencies: bool = False
    only: tuple[str, ...] = ()
    into: str = "."


class Cpu(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A processor that is emulated: QEMU's model, and the kernel's flag names of what it has.

    `cpuinfo` is what a program reads in `/proc/cpuinfo`, where the host's would mislead it.
    """

    name: str
    model: str
    features: tuple[str, ...]
    cpuinfo: str = ""


class Emulation(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """An emulated machine, its plainest processor first.

    `architecture` as in OCI; `qemu` and `root` are paths in the toolchain, and an empty root
    means that the host's own Python is run. `platforms` are the wheels' tags for pip,
    `uv_platform` is the same for uv.
    """

    architecture: str
    qemu: str
    cpus: tuple[Cpu, ...]
    root: str = ""
    platforms: tuple[str, ...] = ()
    uv_platform: str = ""


class Otherwise(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """What is installed where one package cannot be had, in its place.

    `says` is told then: what it costs.
    """

    instead_of: str
    packages: tuple[str, ...]
    says: str


class Definition(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A toolchain before it is installed.

    `python` is the range of versions that its packages run on; `packages` are pinned, all of
    them; `runner` answers its requests; `hosts` are the machines it is for, all if empty.
    `backend` is the folder of the backend whose it is. `otherwise` serves where not all packages
    are found, of which PyPI has not all.
    """

    name: str
    description: str
    runner: str
    python: str = ""
    packages: tuple[str, ...] = ()
    debian: tuple[DebianPackages, ...] = ()
    emulation: Emulation | None = None
    environment: dict[str, str] = {}
    hosts: tuple[str, ...] = ()
    backend: str = ""
    otherwise: Otherwise | None = None

    @property
    def version(self) -> str:
        """The digest of the definition on this kind of machine."""
        content = msgspec.json.encode([self, platform.machine()], order="deterministic")
        return hashlib.sha256(content).hexdigest()[:_VERSION_DIGITS]

    @property
    def runner_path(self) -> Path:
        """The script that answers requests, run by the toolchain's Python."""
        return (BACKENDS / self.backend if self.backend else RUNNERS) / self.runner

    def require_host(self) -> None:
        """Check that this machine can have the toolchain.

        Raises:
            ToolchainError: it is for another kind of machine.
        """
        if self.hosts and platform.machine() not in self.hosts:
            raise ToolchainError(
                f"The toolchain {self.name} cannot be used on this machine.",
                why=f"It is for {', '.join(self.hosts)}; this is {platform.machine()}.",
            )


@cache
def definitions() -> dict[str, Definition]:
    """Every toolchain by name."""
    found = [_read(path) for path in (RUNNERS.parent / "definitions").glob("*.toml")]
    found += [_read(p, backend=p.parent.name) for p in BACKENDS.glob("*/toolchain*.toml")]
    return {item.name: item for item in sorted(found, key=lambda item: item.name)}


def _read(path: Path, **more: str) -> Definition:
    return msgspec.convert({**tomllib.loads(path.read_text("utf-8")), **more}, Definition)


def find(name: str) -> Definition:
    """The toolchain of that name.

    Raises:
        ToolchainError: there is none.
    """
    known = definitions()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    raise ToolchainError(
        f"There is no toolchain {name}.",
        why=f"Known are: {', '.join(known)}.",
        fix=f"Did you mean {near[0]}?" if near else "",
    )
