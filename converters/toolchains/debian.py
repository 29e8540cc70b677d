"""Unpacks Debian packages into a folder, of this or another architecture, without root.

apt is used as it is configured here, with lists, cache and status of its own: the machine's
packages stay as they are, and no foreign architecture is added to it.
"""

import shutil
import subprocess
from pathlib import Path

import msgspec

from converters.toolchains.command import run_command
from converters.toolchains.definition import DebianPackages
from converters.toolchains.logs import tail
from edgeml.errors import ToolchainError

_LEFT_OUT = ("./usr/share/doc", "./usr/share/man", "./usr/share/locale", "./usr/share/info")
_FIX = "Check the network and /etc/apt; `apt-get update` must work."
_APT_TIMEOUT_S = 900


class UnpackedPackage(msgspec.Struct, frozen=True, kw_only=True):
    """A Debian package as it was found in the archive."""

    name: str
    version: str
    architecture: str


def unpack(wanted: DebianPackages, into: Path, work: Path) -> tuple[UnpackedPackage, ...]:
    """Download packages and unpack them.

    Args:
        wanted: which, of which architecture.
        into: the folder that they go to.
        work: an empty folder for apt's lists and the downloads.

    Raises:
        ToolchainError: there is no apt-get here, or it fails.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise ToolchainError(
            f"The Debian packages {', '.join(wanted.packages)} cannot be had on this machine.",
            why="It has no apt-get.",
            fix="Use Debian 12 or later, or one of its kin.",
        )
    archives = _download(wanted, work)
    into.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        _extract(archive, into, wanted.only)
    missing = [name for name in wanted.only if not (into / name).exists()]
    if missing:
        raise ToolchainError(f"{', '.join(wanted.packages)} do not bring {', '.join(missing)}.")
    return tuple(_describe(archive) for archive in archives)


def _download(wanted: DebianPackages, work: Path) -> list[Path]:
    apt = _apt(work, wanted.architecture)
    names = ", ".join(wanted.packages)
    run_command(
        [*apt, "update"], "apt-get update failed.", timeout_s=_APT_TIMEOUT_S, fix=_FIX, folder=work
    )
    # With dependencies, apt plans as on an empty machine; without, it takes what was named.
    verb = ["install", "--download-only", "--yes"] if wanted.dependencies else ["download"]
    run_command(
        [*apt, *verb, *wanted.packages],
        f"The Debian packages {names} cannot be downloaded.",
        timeout_s=_APT_TIMEOUT_S,
        fix=_FIX,
        folder=work,
    )
    return sorted([*work.glob("*.deb"), *(work / "cache" / "archives").glob("*.deb")])


def _apt(work: Path, architecture: str) -> list[str]:
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "cache" / "archives" / "partial").mkdir(parents=True)
    (work / "status").touch()
    options = {
        "Dir::State::lists": work / "lists",
        "Dir::State::status": work / "status",
        "Dir::Cache": work / "cache",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",
        "APT::Install-Recommends": "0",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Acquire::http::Timeout": "30",
    }
    if architecture:
        options |= {"APT::Architecture": architecture, "APT::Architectures": architecture}
    return ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in options.items())]


def _extract(archive: Path, into: Path, only: tuple[str, ...]) -> None:
    chosen = [f"./{name}" for name in only] or [f"--exclude={name}" for name in _LEFT_OUT]
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(archive)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as reader:
        writer = subprocess.run(
            ["tar", "--extract", "--no-same-owner", f"--directory={into}", *chosen],
            stdin=reader.stdout,
            capture_output=True,
            check=False,
        )
    if reader.returncode or writer.returncode:
        raise ToolchainError(
            f"{archive.name} cannot be unpacked.", why=tail(writer.stderr) or "It is damaged."
        )


def _describe(archive: Path) -> UnpackedPackage:
    fields = run_command(
        ["dpkg-deb", "--showformat=${Package} ${Version} ${Architecture}", "--show", str(archive)],
        f"{archive.name} cannot be read.",
        timeout_s=60,
    )
    name, version, architecture = fields.decode().split()
    return UnpackedPackage(name=name, version=version, architecture=architecture)
