"""What all simulated devices share: the fleet's word, the connections' bounds, what is counted."""

import asyncio
import ssl
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from cloud_sync.address import require_private
from cloud_sync.messages import Enrolled
from cloud_sync.mqtt_session import parse_url
from cloud_sync.release import (
    Release,
    ReleaseIndex,
    Variant,
    oci,
    read_index,
    read_release,
    read_variant,
)
from cloud_sync.release.reading import ReadBlob
from cloud_sync.trust import PublicKey, is_by_another, key_id
from cloud_sync.trust.keys import load_public
from fleet.simulator.http import Errand, Web
from fleet.simulator.identities import Identities, Identity
from fleet.simulator.tally import Tally
from fleet.simulator.tuf import Tuf
from hardware.capabilities import Capabilities

AGENT_VERSION = "0.1.0+simulated"
MAX_CONNECTING = 200
KEYS_EVERY_S = 10.0
_Read = TypeVar("_Read")


class Site:
    """See the module.

    Args:
        fleet: what the fleet said of itself when the devices were enrolled.
        identities: where devices are kept.
        web: the HTTPS side.
        capabilities: of each hardware class.
        poll_s: how often a device asks over HTTPS.
        telemetry_s: how often it sends telemetry; None: as the fleet configures it; 0: never.
        fps: frames that each device infers in a second.
        late_s: how long a device that comes back late is away.
        tuf: whether every device follows TUF before it takes a release.
    """

    def __init__(
        self,
        fleet: Enrolled,
        identities: Identities,
        web: Web,
        capabilities: Mapping[str, Capabilities],
        *,
        poll_s: float,
        telemetry_s: float | None,
        fps: float,
        late_s: float,
        tuf: bool,
    ) -> None:
        self.identities = identities
        self.web = web
        self.capabilities = capabilities
        self.poll_s = poll_s
        self.telemetry_s = telemetry_s
        self.fps = fps
        self.late_s = late_s
        self.time_is_proven = False
        director = load_public(fleet.director_key)
        self.directors: dict[str, PublicKey] = {key_id(director): director}
        self.broker_host, self.broker_port, self._secure = parse_url(fleet.mqtt.url)
        require_private(urlsplit(fleet.mqtt.url).scheme, self.broker_host, of="broker")
        self._broker_ca = fleet.mqtt.ca or fleet.ca
        self.connecting = asyncio.Semaphore(MAX_CONNECTING)
        self.releases = Releases()
        self.tally = Tally()
        signed = Tuf(identities.folder / "tuf", fleet.root, web) if tuf or fleet.root else None
        self.trust = signed if tuf else None
        self._keys = signed
        self._learning = asyncio.Lock()
        self._asked_at = -KEYS_EVERY_S
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside all else, and keep it alive."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def end(self) -> None:
        """End what was begun."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def know_signer(self, device: str, errand: Errand, envelope: bytes) -> None:
        """Learn by TUF which keys the fleet signs with, where a message is by another one.

        All devices here share what one of them has learned; a real one asks for itself.

        Raises:
            TrustError: what came as the fleet's word is forged or stale.
            RemoteError: the fleet cannot be asked now.
        """
        async with self._learning:
            late = time.monotonic() >= self._asked_at + KEYS_EVERY_S
            if self._keys is None or not late or not is_by_another(envelope, self.directors):
                return
            self._asked_at = time.monotonic()
            self.directors = await self._keys.director_keys(device, errand)
            self.tally.add("keys_learned")

    def close(self) -> None:
        """Leave what TUF is asked."""
        if self._keys is not None:
            self._keys.close()

    def broker_tls(self, identity: Identity) -> ssl.SSLContext | None:
        """The context in which a device proves itself to the broker; None without TLS."""
        if not self._secure:
            return None
        context = ssl.create_default_context(cadata=self._broker_ca)
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # the ssl module takes only files
            file.write(identity.certificate.encode() + identity.key_pem())
            file.flush()
            context.load_cert_chain(file.name)
        return context

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.tally.failed(error if isinstance(error, Exception) else RuntimeError(str(error)))


class Releases:
    """Reads releases: each device fetches the documents that it needs, one of them reads them.

    As the agent does: the index, and of the chosen variant its manifest and config.
    """

    def __init__(self) -> None:
        self._indices: dict[str, ReleaseIndex] = {}
        self._variants: dict[tuple[str, str], tuple[Variant, tuple[str, ...]]] = {}

    async def index(self, errand: Errand, model: str, digest: str) -> ReleaseIndex:
        """A release's index, which this device has fetched and verified.

        Raises:
            RemoteError: the registry cannot be asked now.
            ReleaseError: what it has is no release's index.
        """
        data = await errand.document(model, digest, oci.MAX_DOCUMENT_BYTES)
        if digest not in self._indices:
            self._indices[digest] = read_index(lambda _digest, _most: data, digest)
        return self._indices[digest]

    async def variant(self, errand: Errand, model: str, release: str, digest: str) -> Variant:
        """A variant whose documents this device has fetched and verified, but for the index.

        Raises:
            RemoteError: the registry cannot be asked now.
            ReleaseError: what it has is not the variant.
        """
        known = self._variants.get((release, digest))
        if known is not None:
            for document in known[1]:
                await errand.document(
                    model, document, oci.MAX_DOCUMENT_BYTES, blob=document != digest
                )
            return known[0]
        return await self._first(errand, model, release, digest)

    async def whole(self, errand: Errand, model: str, digest: str) -> Release:
        """A release with all its variants.

        Raises:
            RemoteError: the registry cannot be asked now.
            ReleaseError: what it has is not the release.
        """
        _, release = await _gathered(errand, model, lambda read: read_release(read, digest))
        return release

    async def _first(self, errand: Errand, model: str, release: str, digest: str) -> Variant:
        found, variant = await _gathered(
            errand, model, lambda read: read_variant(read, release, digest)
        )
        needed = tuple(one for one in found if one != release)
        self._variants[release, digest] = (variant, needed)
        return variant


async def _gathered(
    errand: Errand, model: str, what: Callable[[ReadBlob], _Read]
) -> tuple[tuple[str, ...], _Read]:
    """What is read of documents, which are fetched as they are missed; their digests first."""
    found: dict[str, bytes] = {}
    while True:
        try:
            read = what(lambda wanted, _: _held(found, wanted))
            return tuple(found), read
        except _Missing as missing:
            found[missing.digest] = await errand.document(
                model, missing.digest, oci.MAX_DOCUMENT_BYTES
            )


class _Missing(Exception):  # noqa: N818 -- a question more than a fault
    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


def _held(found: Mapping[str, bytes], digest: str) -> bytes:
    if digest not in found:
        raise _Missing(digest)
    return found[digest]
