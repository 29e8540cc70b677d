"""A release on a stick: everything that a device without a network needs to install it.

A folder, or the same as one `.tar` file:

    edgeml-bundle.json      `BundleInfo`: for which device, what is in it; unsigned, for people
    desired.json            the device's desired state, signed by the fleet's director
    trust/metadata/...      TUF's metadata, as the fleet serves it
    trust/targets/...       what the fleet says of itself, signed as TUF targets
    blobs/sha256/<hex>      the blobs of the releases

Whoever finds the stick can read it and can withhold it. What a device takes from it is signed or
has a signed digest, as it would have over a network.
"""

import json
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO, Protocol, TypeVar, cast

import msgspec

from cloud_sync.release import Blobs
from cloud_sync.release.blobs import sync_folder, write_atomically
from cloud_sync.trust.envelope import MAX_ENVELOPE_BYTES
from edgeml.errors import ReleaseError, UserError

INFO = "edgeml-bundle.json"
DESIRED = "desired.json"
VERSION = 1
MAX_INFO_BYTES = 1 << 20
MAX_TRUST_BYTES = 8 << 20
MAX_FILES = 10_000
_NAME = re.compile(
    r"edgeml-bundle\.json|desired\.json|blobs/sha256/[0-9a-f]{64}"
    r"|trust/(metadata|targets)(/\w[\w.-]*){1,3}",
    re.ASCII,
)
_T = TypeVar("_T")
_Name = Annotated[str, msgspec.Meta(max_length=256)]


class BundleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle says of itself: for which device, and the version of each model's release.

    `files` is how many it has, for a copy that was cut short; 0 where it does not say.
    """

    version: int = VERSION
    device: _Name
    created_at: float = 0.0
    files: Annotated[int, msgspec.Meta(ge=0)] = 0
    models: Annotated[dict[_Name, _Name], msgspec.Meta(max_length=1000)] = {}


class Bundle(Protocol):
    """The files of a bundle, by name; there is no other way into it."""

    @property
    def names(self) -> tuple[str, ...]:
        """The files that a bundle may have, of those that are there."""

    def size(self, name: str) -> int:
        """The bytes of one of them."""

    def open(self, name: str) -> BinaryIO:
        """One of them."""


class _Folder:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names = tuple(_bounded(_regular_files(folder)))

    def size(self, name: str) -> int:
        return (self._folder / name).stat().st_size

    def open(self, name: str) -> BinaryIO:
        return (self._folder / name).open("rb")


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._members = {m.name: m for m in _bounded(tar) if m.isreg() and _NAME.fullmatch(m.name)}
        self.names = tuple(self._members)

    def size(self, name: str) -> int:
        return self._members[name].size

    def open(self, name: str) -> BinaryIO:
        return cast("BinaryIO", self._tar.extractfile(self._members[name]))


@contextmanager
def open_bundle(path: Path) -> Iterator[Bundle]:
    """A bundle for reading.

    Raises:
        UserError: there is none, or it cannot be read.
        ReleaseError: it is damaged.
    """
    try:
        if path.is_dir():
            yield _Folder(path)
            return
        with tarfile.open(path, "r:") as tar:
            yield _Tar(tar)
    except (tarfile.TarError, EOFError) as error:
        raise ReleaseError(f"{path} is no bundle, or is damaged.", why=f"{error}.") from error
    except OSError as error:
        raise UserError(
            f"The bundle {path} cannot be read.",
            why=f"{error.strerror or error}.",
            fix="Name the folder or file that `edgeml releases export` wrote.",
        ) from error


def read_info(bundle: Bundle) -> BundleInfo:
    """What a bundle says of itself.

    Raises:
        ReleaseError: it is none, not whole, or of an unknown version.
    """
    try:
        info = msgspec.json.decode(read(bundle, INFO, MAX_INFO_BYTES), type=BundleInfo)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise ReleaseError("The bundle cannot be read.", why=f"{INFO}: {error}.") from None
    if info.version != VERSION:
        raise ReleaseError(
            f"A bundle of version {info.version} was refused.",
            why=f"This edgeml reads version {VERSION}.",
            fix="Update the older side.",
        )
    if info.files > len(bundle.names):
        raise ReleaseError(
            "The bundle is not whole.",
            why=f"It has {len(bundle.names)} of {info.files} files.",
            fix="Copy it again, or export it again.",
        )
    return info


def read(bundle: Bundle, name: str, max_bytes: int) -> bytes:
    """A small file of a bundle.

    Raises:
        ReleaseError: it is missing or too large.
    """
    if name not in bundle.names:
        raise ReleaseError(f"The bundle has no {name}.", fix="Export it again.")
    with bundle.open(name) as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise ReleaseError(f"{name} of the bundle is too large.", why=f"Over {max_bytes} bytes.")
    return data


def desired_of(bundle: Bundle) -> bytes:
    """The envelope of the desired state in a bundle.

    Raises:
        ReleaseError: it is missing or too large.
    """
    return read(bundle, DESIRED, MAX_ENVELOPE_BYTES)


def copy(bundle: Bundle, folder: Path) -> None:
    """Copy a bundle into a new folder; its blobs are verified on the way.

    Raises:
        ReleaseError: a blob is not what its name says, or a file is too large.
    """
    blobs = Blobs(folder)
    folder.mkdir(parents=True)
    for name in bundle.names:
        if name.startswith("blobs/"):
            digest = f"sha256:{name.rpartition('/')[2]}"
            with (
                bundle.open(name) as source,
                blobs.writing(digest) as beside,
                beside.open("wb") as target,
            ):
                shutil.copyfileobj(source, target, 1 << 20)
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, read(bundle, name, MAX_TRUST_BYTES))


def complete(folder: Path, info: BundleInfo, envelope: bytes, trust: Mapping[str, bytes]) -> None:
    """Make a bundle of a folder that holds the blobs already.

    Args:
        folder: where `blobs/` is.
        info: what it says of itself.
        envelope: the signed desired state.
        trust: TUF's files, by their names below `trust/`.
    """
    files = {f"trust/{name}": data for name, data in trust.items()}
    files |= {DESIRED: envelope, INFO: msgspec.json.encode(info)}
    for name, data in files.items():
        if not _NAME.fullmatch(name):
            raise ReleaseError(f"A bundle cannot hold {name[:200]!r}.")
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)


def pack(folder: Path, file: Path) -> None:
    """Write a folder's bundle as one `.tar` file; it is there whole or not at all."""
    beside = file.with_name(f".{file.name}.part")
    try:
        with tarfile.open(beside, "w:", format=tarfile.USTAR_FORMAT) as tar:
            for name in sorted(_Folder(folder).names):
                tar.add(folder / name, name, filter=_anonymous)
        with beside.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(beside, file)
        sync_folder(file.parent)
    finally:
        beside.unlink(missing_ok=True)


def normalised(envelope: bytes) -> str:
    """An envelope as the journal keeps it."""
    return json.dumps(json.loads(envelope))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode, member.mtime = 0o644, 0
    return member


def _regular_files(folder: Path) -> Iterator[str]:
    for place, _, files in os.walk(folder):
        for file in files:
            path = Path(place) / file
            name = path.relative_to(folder).as_posix()
            if _NAME.fullmatch(name) and stat.S_ISREG(path.lstat().st_mode):
                yield name


def _bounded(found: Iterable[_T]) -> Iterator[_T]:
    """At most so many.

    Raises:
        ReleaseError: there are more.
    """
    for number, each in enumerate(found):
        if number >= MAX_FILES:
            raise ReleaseError(f"The bundle has over {MAX_FILES} files.")
        yield each
