"""A key of the fleet that rotates with overlap: announced, then signing, then retired, withdrawn.

Below the folder `keys`, for the name `director` (and likewise `ca`):

- `director.key`, `director.pem`: signs now, and its public half (of the CA: its certificate);
- `director.next.key`, `director.next.pem`: announced to devices, signs nothing yet;
- `director.old.pem`: public halves that signed before and are still good; of the CA its key, too
  (`ca.old.key`), which revokes what it issued until it is withdrawn.

A crash between two steps of a change is mended when the ring is read. Several processes may use
one ring: each change is made under a lock, and `refresh` reads what another has changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloud_sync.release import write_atomically
from cloud_sync.trust import PrivateKey, generate, load_key, save_key
from cloud_sync.trust.keys import split_pems
from fleet.shared_lock import SharedLock


@dataclass(frozen=True, repr=False)
class Held:
    """A private key that the fleet holds, and what is published of it (PEM)."""

    key: PrivateKey
    public: str


class Ring:
    """See the module.

    Args:
        folder: where the files are.
        name: what they begin with.
        publish: what is public of a key, PEM.
        keep: whether the private half of the last retired key is kept.

    Attributes:
        current: what signs.
        coming: what will sign as soon as devices can know it; None where nothing rotates.
        retired: what signed before and is still good, PEM, oldest first.

    Raises:
        TrustError: a key can be read by others or is damaged.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        publish: Callable[[PrivateKey], str],
        *,
        keep: bool = False,
    ) -> None:
        self._folder = folder
        self._name = name
        self._publish = publish
        self._keep = keep
        self._lock = SharedLock(self._path("lock"))
        with self._lock:
            self._read()

    def refresh(self) -> None:
        """Read it again, where another process has changed it."""
        if self._stamp() != self._seen:
            with self._lock:
                self._read()

    def _read(self) -> None:
        self._mend()
        if not self._path("key").exists():
            save_key(generate(), self._path("key"))
        key = load_key(self._path("key"))
        if not self._path("pem").exists():
            write_atomically(self._path("pem"), self._publish(key).encode())
        self.current = Held(key, self._path("pem").read_text())
        self.coming = self._coming()
        old = self._path("old.pem")
        self.retired = tuple(split_pems(old.read_text())) if old.exists() else ()
        self._seen = self._stamp()

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        """Another one after each change: files are replaced, never written to."""
        found = []
        for ending in ("key", "pem", "next.pem", "old.pem"):
            try:
                known = self._path(ending).stat()
            except FileNotFoundError:
                found.append((0, 0))
            else:
                found.append((known.st_ino, known.st_mtime_ns))
        return tuple(found)

    @property
    def retired_key(self) -> Held | None:
        """The last retired key, where it is kept."""
        path = self._path("old.key")
        return Held(load_key(path), self.retired[-1]) if self.retired and path.exists() else None

    @property
    def trusted(self) -> str:
        """All that is good, PEM, the newest last."""
        coming = (self.coming.public,) if self.coming else ()
        # One that was just retired signs still, where a crash came before the next took its place.
        return "".join(dict.fromkeys((*self.retired, self.current.public, *coming)))

    def announce(self) -> None:
        """Make the next key; it signs nothing yet."""
        key = generate()
        with self._lock:
            save_key(key, self._path("next.key"))
            write_atomically(self._path("next.pem"), self._publish(key).encode())
            self._read()

    def give_up(self) -> None:
        """Forget the next key."""
        with self._lock:
            self._path("next.pem").unlink(missing_ok=True)
            self._path("next.key").unlink(missing_ok=True)
            self._read()

    def promote(self) -> None:
        """Have the next key sign; the one before stays good, and its private half is gone."""
        assert self.coming is not None
        with self._lock:
            if self._keep:
                save_key(self.current.key, self._path("old.key"))
            if self.current.public not in self.retired:
                self._retire((*self.retired, self.current.public))
            write_atomically(self._path("pem"), self.coming.public.encode())
            self._read()

    def withdraw(self) -> tuple[str, ...]:
        """Have nothing but the key that signs be good; returns what no longer is."""
        with self._lock:
            gone = self.retired
            self._retire(())
            self._path("old.key").unlink(missing_ok=True)
            self._read()
        return gone

    def _retire(self, publics: tuple[str, ...]) -> None:
        write_atomically(self._path("old.pem"), "".join(publics).encode())

    def _coming(self) -> Held | None:
        if not self._path("next.pem").exists():
            return None
        return Held(load_key(self._path("next.key")), self._path("next.pem").read_text())

    def _mend(self) -> None:
        """Finish what a crash cut short."""
        key, public = self._path("next.key"), self._path("next.pem")
        if key.exists() and not public.exists():
            key.unlink()
        elif key.exists() and public.read_bytes() == _bytes(self._path("pem")):
            key.replace(self._path("key"))
        if public.exists() and not key.exists():
            public.unlink()

    def _path(self, ending: str) -> Path:
        return self._folder / f"{self._name}.{ending}"


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
