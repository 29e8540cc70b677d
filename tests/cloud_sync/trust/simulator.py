"""A TUF repository in memory, steered by assignment, that hands out whatever a test wants.

    sim = RepositorySimulator()
    sim.timestamp.version += 1
    sim.publish()

It signs honestly whatever it holds; an attack is something assigned to it (`sim.root`, a key, a
version, an expiry) or put in place of an answer (`sim.answers`). `Direct` hands its answers to
the client without a network; `served` puts the same ones behind a real HTTP server.
"""

import copy
import datetime as dt
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.ngclient.fetcher import FetcherInterface

NOW = 1_600_000_000.0  # long ago by the clock of any machine that runs this
SIM = "sim://repository"
_TOP = (Root.type, Timestamp.type, Snapshot.type, Targets.type)


def at(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


class RepositorySimulator:
    """See the module. Root versions are kept from 1 on; of all else only the newest."""

    def __init__(self) -> None:
        expires = at(NOW + 86400.0)
        self.root = Root(expires=expires, consistent_snapshot=True)
        self.targets = Targets(expires=expires)
        self.snapshot = Snapshot(expires=expires)
        self.timestamp = Timestamp(expires=expires)
        self.delegates: dict[str, Targets] = {}
        self.signers: dict[str, list[CryptoSigner]] = {role: [] for role in _TOP}
        self.roots: list[bytes] = []
        self.published: dict[str, bytes] = {}
        self.contents: dict[str, bytes] = {}
        self.answers: dict[str, Callable[[], Iterable[bytes]]] = {}
        self.asked: list[str] = []
        for role in _TOP:
            self.add_key(role)
        self.publish_root()
        self.publish()

    def add_key(self, role: str) -> CryptoSigner:
        """Give a top-level role one more key."""
        signer = CryptoSigner.generate_ed25519()
        self.root.add_key(signer.public_key, role)
        self.signers[role].append(signer)
        return signer

    def rotate(self, role: str) -> CryptoSigner:
        """Give a top-level role another key in place of its keys; returns the first old one."""
        old = self.signers[role]
        for signer in old:
            self.root.revoke_key(signer.public_key.keyid, role)
        self.signers[role] = []
        self.add_key(role)
        return old[0]

    def delegate(self, name: str, pattern: str) -> CryptoSigner:
        """Let a team sign what a path pattern matches."""
        signer = CryptoSigner.generate_ed25519()
        role = DelegatedRole(name, [], 1, terminating=True, paths=[pattern])
        if self.targets.delegations is None:
            self.targets.delegations = Delegations({}, {})
        assert self.targets.delegations.roles is not None
        self.targets.delegations.roles[name] = role
        self.targets.add_key(signer.public_key, name)
        self.delegates[name] = Targets(expires=self.targets.expires)
        self.signers[name] = [signer]
        return signer

    def sign(self, path: str, digest: str, role: str = Targets.type) -> None:
        """Add a target that is known by its digest alone, as a release is."""
        targets = self.targets if role == Targets.type else self.delegates[role]
        hashes = {"sha256": digest.removeprefix("sha256:")}
        targets.targets[path] = TargetFile(1, hashes, path)

    def put(self, path: str, content: bytes) -> None:
        """Add a target with its content."""
        target = TargetFile.from_data(path, content, ["sha256"])
        self.targets.targets[path] = target
        self.contents[target.get_prefixed_paths()[0]] = content

    def publish_root(self, also: Iterable[CryptoSigner] = ()) -> None:
        """Publish the root as its next version, signed by its keys and `also`."""
        self.root.version = len(self.roots) + 1
        self.roots.append(self.signed(self.root, [*self.signers[Root.type], *also]))

    def publish(self, *changed: str) -> None:
        """Count up the targets roles that changed, then snapshot and timestamp; publish all."""
        everything = {Targets.type: self.targets, **self.delegates}
        for name, targets in everything.items():
            targets.version += name in changed
            self.published[name] = self.signed(targets, self.signers[name])
            self.snapshot.meta[f"{name}.json"] = MetaFile(targets.version)
        self.snapshot.version += bool(changed)
        self.timestamp.version += bool(changed)
        self.publish_snapshot()
        self.publish_timestamp()

    def publish_snapshot(self) -> None:
        self.published[Snapshot.type] = self.signed(self.snapshot, self.signers[Snapshot.type])

    def publish_timestamp(self) -> None:
        self.timestamp.snapshot_meta = MetaFile(self.snapshot.version)
        self.published[Timestamp.type] = self.signed(self.timestamp, self.signers[Timestamp.type])

    def signed(self, content: Signed, signers: Iterable[CryptoSigner]) -> bytes:
        metadata = Metadata(copy.deepcopy(content))
        for signer in signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def fetch(self, path: str) -> Iterator[bytes]:
        """The answer to `metadata/...` or `targets/...`."""
        self.asked.append(path)
        if path in self.answers:
            return iter(self.answers[path]())
        kind, _, name = path.partition("/")
        if kind == "targets":
            found = self.contents.get(name)
        else:
            version, _, role = name.removesuffix(".json").rpartition(".")
            found = self._root(int(version)) if role == Root.type else self.published.get(role)
        if found is None:
            raise DownloadHTTPError("not found", 404)
        return iter((found,))

    def _root(self, version: int) -> bytes | None:
        return self.roots[version - 1] if version <= len(self.roots) else None


class Direct(FetcherInterface):
    """Hands over a simulator's answers as they are."""

    def __init__(self, sim: RepositorySimulator) -> None:
        self._sim = sim

    def _fetch(self, url: str) -> Iterator[bytes]:
        return self._sim.fetch(url.removeprefix(f"{SIM}/"))


@contextmanager
def served(sim: RepositorySimulator, below: str = "") -> Iterator[str]:
    """The simulator behind a real HTTP server, below a path of it; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                chunks = sim.fetch(self.path.removeprefix(f"{below}/"))
            except DownloadHTTPError as error:
                self.send_error(error.status_code)
                return
            self.send_response(200)
            self.end_headers()
            try:
                for chunk in chunks:
                    self.wfile.write(chunk)
            except OSError:
                return  # the client had enough

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def endless() -> Iterator[bytes]:
    """Bytes without end."""
    while True:
        yield b"x" * 4096


def dripping() -> Iterator[bytes]:
    """A byte now and then, for long enough."""
    for _ in range(200):
        time.sleep(0.05)
        yield b"x"
