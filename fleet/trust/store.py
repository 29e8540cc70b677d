"""The files of the TUF repository, below the fleet's data folder.

- `trust/metadata/<version>.<role>.json`, `timestamp.json`: published; a version never changes.
- `trust/targets/_fleet/<sha256>.<name>`: what the fleet says of itself, signed as a target.
- `trust/staged/<role>.json`: the next version, waiting for signatures.
- `trust/keys/<key id>.key`: the keys that the fleet holds, mode 0600.
"""

import re
from collections.abc import Collection
from pathlib import Path

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Root, Timestamp

from cloud_sync.release import write_atomically
from cloud_sync.trust import generate, load_key, save_key

_PUBLIC = re.compile(r"(metadata|targets)(/\w[\w.-]*)+", re.ASCII)
KEPT_VERSIONS = 3  # a client that is under way may still ask for the one before


class Store:
    """See the module.

    Args:
        folder: the repository's folder; made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._metadata = folder / "metadata"
        self._staged = folder / "staged"
        self._keys = folder / "keys"

    def published(self, role: str, version: int | None = None) -> bytes | None:
        """A published version of a role, the newest by default."""
        if role == Timestamp.type:
            return _read(self._metadata / f"{role}.json")
        versions = self.versions(role)
        found = version if version is not None else max(versions, default=0)
        return _read(versions[found]) if found in versions else None

    def publish(self, role: str, version: int, data: bytes) -> None:
        """Make a version public; of all roles but root only some are kept."""
        self._metadata.mkdir(parents=True, exist_ok=True)
        if role == Timestamp.type:
            write_atomically(self._metadata / f"{role}.json", data)
            return
        write_atomically(self._metadata / f"{version}.{role}.json", data)
        if role != Root.type:
            versions = self.versions(role)
            for old in sorted(versions)[:-KEPT_VERSIONS]:
                versions[old].unlink(missing_ok=True)

    def staged(self, role: str) -> bytes | None:
        """What waits for signatures."""
        return _read(self._staged / f"{role}.json")

    def staged_roles(self) -> list[str]:
        """The roles that have something waiting."""
        return sorted(path.stem for path in self._staged.glob("*.json"))

    def stage(self, role: str, data: bytes) -> None:
        """Keep the next version of a role."""
        self._staged.mkdir(parents=True, exist_ok=True)
        write_atomically(self._staged / f"{role}.json", data)

    def unstage(self, role: str) -> None:
        """Forget the next version of a role."""
        (self._staged / f"{role}.json").unlink(missing_ok=True)

    def signers(self) -> dict[str, CryptoSigner]:
        """The keys that the fleet holds, by key id.

        Raises:
            TrustError: one can be read by others or is damaged.
        """
        found = [CryptoSigner(load_key(path)) for path in sorted(self._keys.glob("*.key"))]
        return {signer.public_key.keyid: signer for signer in found}

    def make_key(self) -> SSlibKey:
        """Make a key that the fleet holds; returns its public half."""
        self._keys.mkdir(parents=True, mode=0o700, exist_ok=True)
        private = generate()
        key = SSlibKey.from_crypto(private.public_key())
        save_key(private, self._keys / f"{key.keyid}.key")
        return key

    def keep_keys(self, keyids: Collection[str]) -> None:
        """Remove all keys that the fleet holds but these."""
        for path in self._keys.glob("*.key"):
            if path.stem not in keyids:
                path.unlink()

    def put_content(self, name: str, data: bytes) -> None:
        """Keep the content of a target under the name that clients ask for."""
        path = self.folder / "targets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)

    def file(self, path: str) -> bytes | None:
        """What is served under `metadata/...` or `targets/...`; nothing else of the folder is."""
        return _read(self.folder / path) if _PUBLIC.fullmatch(path) else None

    def published_at(self) -> tuple[int, ...]:
        """What changes whenever something is published; empty while nothing is."""
        try:
            stats = [path.stat() for path in (self._metadata, self._metadata / "timestamp.json")]
        except OSError:
            return ()
        return tuple(number for stat in stats for number in (stat.st_mtime_ns, stat.st_ino))

    def versions(self, role: str) -> dict[int, Path]:
        """The published versions of a role; the timestamp has none."""
        found = {}
        for path in self._metadata.glob(f"*.{role}.json"):
            version, _, name = path.stem.partition(".")
            if name == role and version.isdecimal():
                found[int(version)] = path
        return found


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
