"""The deltas that a fleet has made: kept in its registry as blobs, listed by what they lead to.

    registry/deltas/<hex of the target>/<hex of the base>   JSON of `Made`

That a pair was tried and a delta is not worth it is kept, too, so that it is tried once.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from cloud_sync.delta import DeltaOffer, DeltaOffers, is_possible, is_worth
from cloud_sync.delta_making import make
from cloud_sync.release import is_digest, write_atomically
from edgeml.errors import ReleaseError
from fleet.registry import Registry

_MAX_OFFERS = 64


class Pair(msgspec.Struct, frozen=True, order=True):
    """Two blobs: what devices have, and what they shall have."""

    base: str
    target: str


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a pair; `digest` is empty where a delta is not worth it."""

    digest: str = ""
    size: int = 0
    full: int = 0


class Deltas:
    """See the module; safe to use from several threads.

    Args:
        registry: where blobs and deltas are.
    """

    def __init__(self, registry: Registry) -> None:
        self._blobs = registry.blobs
        self._folder = registry.folder / "deltas"

    def offers(self, target: str) -> DeltaOffers:
        """The deltas that lead to a blob, smallest first.

        Raises:
            ReleaseError: the text is no digest.
        """
        found = [
            DeltaOffer(base=pair.base, digest=made.digest, size=made.size)
            for pair, made in self._of(target)
            if made.digest and self._blobs.has(made.digest)
        ]
        return DeltaOffers(offers=tuple(sorted(found, key=lambda o: o.size)[:_MAX_OFFERS]))

    def all(self) -> dict[Pair, Made]:
        """Every pair that was tried."""
        folders = self._folder.iterdir() if self._folder.is_dir() else ()
        targets = [f"sha256:{folder.name}" for folder in folders]
        return {pair: made for t in targets if is_digest(t) for pair, made in self._of(t)}

    def is_due(self, pair: Pair) -> bool:
        """Whether a delta could be made and was not tried yet."""
        paths = self._blobs.path(pair.base), self._blobs.path(pair.target)
        if pair.base == pair.target or self._note(pair).is_file():
            return False
        return all(p.is_file() for p in paths) and is_possible(*(p.stat().st_size for p in paths))

    def make(self, pair: Pair, pause: Callable[[], None] = lambda: None) -> Made:
        """Make the delta of a pair, and keep it where it is worth it.

        Args:
            pair: the two blobs, which are in the registry.
            pause: called now and then; may raise to stop.

        Raises:
            OSError: the disk cannot be used.
        """
        base, target = self._blobs.path(pair.base), self._blobs.path(pair.target)
        full = target.stat().st_size
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".making-") as folder:
            file = Path(folder) / "delta"
            size = make(base, target, file, pause)
            made = Made(full=full, size=size)
            if is_worth(size, full):
                made = msgspec.structs.replace(made, digest=self._blobs.put_file(file))
        note = self._note(pair)
        note.parent.mkdir(exist_ok=True)
        write_atomically(note, msgspec.json.encode(made))
        return made

    def forget(self, pair: Pair) -> None:
        """Forget that a pair was tried; its blob is left to the garbage collection."""
        note = self._note(pair)
        note.unlink(missing_ok=True)
        if note.parent.is_dir() and not any(note.parent.iterdir()):
            note.parent.rmdir()

    def prepare(self) -> None:
        """Remove what a crash left half-made."""
        for left in self._folder.glob(".making-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _of(self, target: str) -> Iterator[tuple[Pair, Made]]:
        folder = self._note(Pair(target, target)).parent
        for file in sorted(folder.iterdir()) if folder.is_dir() else ():
            pair = Pair(f"sha256:{file.name}", target)
            if not is_digest(pair.base):
                continue
            try:
                yield pair, msgspec.json.decode(file.read_bytes(), type=Made)
            except (msgspec.DecodeError, ValueError, FileNotFoundError):
                continue

    def _note(self, pair: Pair) -> Path:
        if not (is_digest(pair.base) and is_digest(pair.target)):
            raise ReleaseError("A delta leads from a digest to a digest.")
        parts = (pair.target, pair.base)
        return self._folder.joinpath(*(text.removeprefix("sha256:") for text in parts))
