"""Where toolchains are installed, and how one comes and goes whole.

`EDGEML_TOOLCHAINS/NAME/VERSION`, the version being the digest of the definition. A toolchain
is made beside its place and renamed when it is complete: what a killed installation leaves
behind is not found by anyone, and the next one clears it away.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from converters.toolchains.debian import UnpackedPackage
from converters.toolchains.definition import Definition, definitions, find
from converters.toolchains.environment import Built, build
from edgeml.errors import ToolchainError

_MANIFEST = "toolchain.json"
_MAKING = ".making-"
_CHUNK = 1 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What was installed: digests of files, targets of links, by path in the toolchain."""

    definition: Definition
    python: str = ""
    packages: tuple[str, ...] = ()
    debian: tuple[UnpackedPackage, ...] = ()
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    bytes: int = 0


class Installed(msgspec.Struct, frozen=True, kw_only=True):
    """A toolchain that is complete."""

    definition: Definition
    folder: Path

    @property
    def identity(self) -> str:
        """All that decides on what it makes: its packages, and the runner that asks them."""
        runner = hashlib.sha256(self.definition.runner_path.read_bytes()).hexdigest()
        return f"{self.definition.version}-{runner}"

    def manifest(self) -> Manifest:
        """What was installed.

        Raises:
            ToolchainError: the record of it is damaged.
        """
        try:
            return msgspec.json.decode((self.folder / _MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.DecodeError):
            raise ToolchainError(
                f"The toolchain {self.definition.name} is damaged.",
                why=f"Its {_MANIFEST} cannot be read.",
                fix=_again(self.definition.name),
            ) from None

    def damage(self) -> tuple[str, ...]:
        """Sentences about files that are missing or not what was installed; empty if none.

        Raises:
            ToolchainError: the record of what was installed is damaged.
        """
        manifest = self.manifest()
        found = []
        for name, digest in manifest.files.items():
            path = self.folder / name
            if path.is_symlink() or not path.is_file():
                found.append(f"{name} is missing.")
            elif _digest(path) != digest:
                found.append(f"{name} is not what was installed.")
        for name, target in manifest.links.items():
            path = self.folder / name
            if not path.is_symlink() or os.readlink(path) != target:  # noqa: PTH115
                found.append(f"{name} is not the link that was installed.")
        return tuple(found)


def home() -> Path:
    """The folder of all toolchains: `EDGEML_TOOLCHAINS`, else the user's data folder."""
    if chosen := os.environ.get("EDGEML_TOOLCHAINS"):
        return Path(chosen).absolute()
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "edgeml" / "toolchains"


def installed(name: str) -> Installed | None:
    """The toolchain of that name, or None where it is not installed in this version.

    Raises:
        ToolchainError: there is no such toolchain.
    """
    folder = _place(name)
    return Installed(definition=find(name), folder=folder) if folder.is_dir() else None


def require(name: str) -> Installed:
    """The toolchain of that name.

    Raises:
        ToolchainError: there is no such toolchain, it is not installed, or not for this machine.
    """
    require_all([name])
    return Installed(definition=find(name), folder=_place(name))


def require_all(names: Sequence[str]) -> None:
    """Check that these toolchains are here.

    Raises:
        ToolchainError: one does not exist or is not for this machine, or some are not installed:
            all of them are named.
    """
    for name in names:
        find(name).require_host()
    if lacking := [name for name in names if installed(name) is None]:
        several = len(lacking) > 1
        raise ToolchainError(
            f"The toolchain{'s' if several else ''} {', '.join(lacking)} "
            f"{'are' if several else 'is'} not installed.",
            fix=f"Run: edgeml toolchain install {' '.join(lacking)}",
        )


def install(name: str, say: Callable[[str], None] = lambda _: None) -> Installed:
    """Install a toolchain; nothing to do where it is installed.

    Args:
        name: which.
        say: told what is being done.

    Raises:
        ToolchainError: there is no such toolchain, or it cannot be installed here.
    """
    definition = find(name)
    definition.require_host()
    folder = home() / name
    with _locked(folder, say):
        if (found := installed(name)) is not None:
            return found
        _clear(folder)
        say(f"Installing the toolchain {name} into {folder / definition.version}")
        making = Path(tempfile.mkdtemp(dir=folder, prefix=_MAKING))
        try:
            manifest = _take_stock(making, definition, build(definition, making, say))
            (making / _MANIFEST).write_bytes(msgspec.json.encode(manifest))
            making.rename(folder / definition.version)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
    return Installed(definition=definition, folder=folder / definition.version)


def remove(name: str) -> bool:
    """Remove a toolchain in all its versions; False where there was none.

    Raises:
        ToolchainError: there is no such toolchain.
    """
    find(name)
    folder = home() / name
    if not folder.is_dir():
        return False
    with _locked(folder, lambda _: None):
        there = any(entry.is_dir() and entry.name[0] != "." for entry in folder.iterdir())
        for entry in sorted(folder.iterdir()):
            if entry.is_dir():
                # A toolchain that is half removed must not count either.
                gone = entry.rename(folder / f"{_MAKING}{entry.name}")
                shutil.rmtree(gone, ignore_errors=True)
    return there


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A toolchain as `edgeml toolchain list` shows it."""

    name: str
    description: str
    version: str
    installed: bool
    path: str = ""
    python: str = ""
    bytes: int = 0


def listing() -> tuple[Listed, ...]:
    """Every toolchain, installed or not; one whose record is damaged has no size."""
    rows = []
    for definition in definitions().values():
        found = installed(definition.name)
        manifest = Manifest(definition=definition)
        if found:
            with contextlib.suppress(ToolchainError):
                manifest = found.manifest()
        rows.append(
            Listed(
                name=definition.name,
                description=definition.description,
                version=definition.version,
                installed=found is not None,
                path=str(found.folder) if found else "",
                python=manifest.python,
                bytes=manifest.bytes,
            )
        )
    return tuple(rows)


def _place(name: str) -> Path:
    return home() / name / find(name).version


def _again(name: str) -> str:
    return f"Run: edgeml toolchain remove {name}; edgeml toolchain install {name}"


@contextlib.contextmanager
def _locked(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One installation at a time; the system gives the lock back when its holder dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise ToolchainError(
            f"{folder} cannot be written.", why=f"{error.strerror}.", fix="Set EDGEML_TOOLCHAINS."
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another installation of this toolchain is under way; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _clear(folder: Path) -> None:
    for entry in folder.glob(f"{_MAKING}*"):
        shutil.rmtree(entry, ignore_errors=True)


def _take_stock(folder: Path, definition: Definition, built: Built) -> Manifest:
    files, links, size = {}, {}, 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            links[name] = os.readlink(path)  # noqa: PTH115 -- as it is written, not resolved
        elif path.is_file() and "__pycache__" not in path.parts:
            files[name] = _digest(path)
            size += path.stat().st_size
    return Manifest(
        definition=definition,
        python=built.python,
        packages=built.packages,
        debian=built.debian,
        files=files,
        links=links,
        bytes=size,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
