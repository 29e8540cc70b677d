"""Takes a bundle (`cloud_sync.bundle`) that somebody brought on a stick, while the agent runs.

    import/waiting/       a whole, verified copy, put there by `edgeml agent import`
    import/taken/         the one that is being judged; judged anew after a restart
    import/trust/         TUF's files of the last one that was accepted, for the update's own check
    import/result.json    what became of the last one: `ImportResult`

Everything is judged before anything changes: the director's signature, device, version and expiry
of the desired state; of every release TUF's signatures and digest, whether this device would choose
the same variant, and that all its files are there. Then the state is journalled and the update
goes its usual way, with its test and its trial.
"""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from cloud_sync import bundle as bundles
from cloud_sync.desired import StateError
from cloud_sync.messages import DesiredModel, DesiredState, SecurityKind, SecurityRecord
from cloud_sync.release import (
    Blobs,
    Variant,
    digest_of,
    read_release,
    resolve,
    write_atomically,
)
from cloud_sync.release.blobs import sync_folder
from cloud_sync.release.closure import documents, on_devices
from cloud_sync.release.oci import MAX_DOCUMENT_BYTES
from edge_agent.failpoints import reach
from edge_agent.room import require_room
from edge_agent.store import ReleaseStore
from edgeml.errors import (
    DeviceError,
    EdgemlError,
    ExitCode,
    ReleaseError,
    TrustError,
    UserError,
)
from hardware.capabilities import Capabilities

log = logging.getLogger(__name__)

POLL_S = 0.5


class ImportResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a bundle: `bundle` is the digest of its desired state, `models` what it wants.

    `reason` says why it was refused and is empty where it was accepted.
    """

    bundle: str
    reason: str = ""
    exit_code: int = 0
    models: dict[str, str] = {}


class Places(msgspec.Struct, frozen=True):
    """The folders below `import/` in the device's data."""

    folder: Path

    @property
    def waiting(self) -> Path:
        """A whole bundle that nobody has judged yet."""
        return self.folder / "waiting"

    @property
    def taken(self) -> Path:
        """The one that is being judged."""
        return self.folder / "taken"

    @property
    def trust(self) -> Path:
        """TUF's files of the last one that was accepted."""
        return self.folder / "trust"

    @property
    def result(self) -> Path:
        """What became of the last one."""
        return self.folder / "result.json"


def places(data: Path) -> Places:
    """Where bundles are, in a device's data."""
    return Places(data / "import")


def stage(path: Path, data: Path, device: str) -> bundles.BundleInfo:
    """Copy a bundle to where the agent finds it, whole and verified, or not at all.

    Raises:
        UserError: it cannot be read, or is for another device.
        ReleaseError: it is damaged.
        DeviceError: the disk has no room for it.
    """
    where = places(data)
    with bundles.open_bundle(path) as bundle:
        info = bundles.read_info(bundle)
        if info.device != device:
            raise UserError(
                "The bundle was refused.",
                why=f"It is for {info.device[:64]!r}, this is {device!r}.",
                fix=f"Export one for this device: edgeml releases export --device {device}",
            )
        beside = where.folder / f".staging-{os.getpid()}"
        try:
            where.folder.mkdir(exist_ok=True)
            require_room(data, sum(map(bundle.size, bundle.names)), len(bundle.names))
            bundles.copy(bundle, beside)
            _give(where.folder, beside, data)
            where.result.unlink(missing_ok=True)
            shutil.rmtree(where.waiting, ignore_errors=True)
            os.replace(beside, where.waiting)
            sync_folder(where.folder)
        except OSError as error:
            raise DeviceError(
                "The bundle cannot be copied.",
                why=f"{error.strerror or error}.",
                fix=f"Check the disk of {data}.",
            ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return info


class Importing:
    """Judges what waits; `turn` is called by a thread of its own.

    Args:
        data: the device's data folder.
        store: where blobs go.
        capabilities: what this device is.
        judge: verifies a desired state, by TUF's files in a folder where it has to; raises.
        trusted: checks that a release (model, version, digest) is signed by the TUF files in a
            folder; raises.
        accept: takes a state with its envelope, and begins to act on it.
        tell: takes what the fleet should hear of a refusal.
        stop: set when the agent ends.
    """

    def __init__(
        self,
        data: Path,
        store: ReleaseStore,
        capabilities: Capabilities,
        *,
        judge: Callable[[bytes, Path], DesiredState],
        trusted: Callable[[Path, str, str, str], None],
        accept: Callable[[DesiredState, str], None],
        tell: Callable[[SecurityRecord], None],
        stop: threading.Event,
    ) -> None:
        self._places = places(data)
        self._store = store
        self._capabilities = capabilities
        self._judge = judge
        self._trusted = trusted
        self._accept = accept
        self._tell = tell
        self._stop = stop

    def turn(self) -> None:
        """Judge a bundle that waits, or wait a little."""
        taken, waiting = self._places.taken, self._places.waiting
        if not taken.exists():
            if not waiting.exists():
                self._stop.wait(POLL_S)
                return
            os.replace(waiting, taken)
        reach("import-taken")
        result = self._judged(taken)
        log.info("the bundle was %s", f"refused: {result.reason}" if result.reason else "accepted")
        write_atomically(self._places.result, msgspec.json.encode(result))
        shutil.rmtree(taken)

    def _judged(self, taken: Path) -> ImportResult:
        name = ""
        try:
            with bundles.open_bundle(taken) as bundle:
                envelope = bundles.desired_of(bundle)
            name = digest_of(envelope)
            state = self._judge(envelope, taken / "trust")
            self._take(taken, state, envelope)
        except EdgemlError as error:
            self._report(error)
            return ImportResult(bundle=name, reason=str(error), exit_code=error.exit_code)
        except OSError as error:
            reason = f"The disk cannot be used: {error}."
            return ImportResult(bundle=name, reason=reason, exit_code=ExitCode.DEVICE)
        versions = {model: wanted.release_version for model, wanted in state.models.items()}
        return ImportResult(bundle=name, models=versions)

    def _take(self, taken: Path, state: DesiredState, envelope: bytes) -> None:
        brought = Blobs(taken)
        needed: set[str] = set()
        for model, wanted in state.models.items():
            variant = self._check(brought, model, wanted)
            self._trusted(taken / "trust", model, wanted.release_version, wanted.release)
            needed |= self._complete(brought, wanted, variant)
        # What the store has, no garbage collection takes away before the state refers to it.
        with self._store.in_use():
            for digest in sorted(needed):
                if brought.has(digest):
                    self._store.blobs.adopt(brought.path(digest), digest)
                reach("import-stored")
            self._keep_trust(taken)
            self._accept(state, bundles.normalised(envelope))
            reach("import-accepted")

    def _check(self, brought: Blobs, model: str, wanted: DesiredModel) -> Variant:
        """The variant, if it is the release's own and this device would choose it.

        Raises:
            ReleaseError: something is missing, damaged or does not fit.
        """
        release = read_release(lambda d, limit: self._read(brought, d, limit), wanted.release)
        if release.model != model or release.version != wanted.release_version:
            raise ReleaseError(
                "The bundle was refused.",
                why=f"Its release is {release.name}, wanted is {model}:{wanted.release_version}.",
            )
        found = resolve(release, self._capabilities)
        if found.variant is None or found.variant.digest != wanted.variant:
            raise ReleaseError(
                "The bundle was refused.",
                why=f"The fleet chose another variant of {release.name} than this device would: "
                f"{found.reason}",
            )
        return found.variant

    def _complete(self, brought: Blobs, wanted: DesiredModel, variant: Variant) -> set[str]:
        """All blobs that are needed of a release; each is in the bundle or here.

        Raises:
            ReleaseError: one is missing or damaged.
        """
        release = read_release(lambda d, limit: self._read(brought, d, limit), wanted.release)
        read = documents(lambda d, limit: self._read(brought, d, limit), release)
        files: Mapping[str, int] = on_devices(variant)
        for digest in files:
            if brought.has(digest):
                brought.verify(digest)
            elif not self._store.blobs.has(digest):
                raise ReleaseError(
                    "The bundle was refused.",
                    why=f"It lacks a file of the variant {variant.target}: {digest}.",
                    fix="Export it again: edgeml releases export",
                )
        return read | set(files)

    def _read(self, brought: Blobs, digest: str, limit: int) -> bytes:
        here = brought if brought.has(digest) else self._store.blobs
        return here.read(digest, min(limit, MAX_DOCUMENT_BYTES))

    def _keep_trust(self, taken: Path) -> None:
        shutil.rmtree(self._places.trust, ignore_errors=True)
        if (taken / "trust").is_dir():
            shutil.copytree(taken / "trust", self._places.trust)

    def _report(self, error: EdgemlError) -> None:
        if isinstance(error, TrustError):
            is_state = isinstance(error, StateError)
            kind = SecurityKind.REFUSED_STATE if is_state else SecurityKind.UNTRUSTED_RELEASE
            self._tell(
                SecurityRecord(
                    kind=kind, model="", release="", detail=f"A bundle was refused. {error}"
                )
            )


def _give(folder: Path, staged: Path, data: Path) -> None:
    """Have the agent's user own what another has put there.

    Links are not followed: in a folder of that user's they could lead to anything of root's.
    """
    owner = data.stat()
    if os.geteuid() == owner.st_uid:
        return
    found = [Path(place) / name for place, _, names in os.walk(staged) for name in ("", *names)]
    for path in (folder, *found):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
