"""The registries of this device: the mirrors that were configured, then the fleet's own.

A configuration may change while an update waits; what is asked next follows it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from cloud_sync.download import Pace
from cloud_sync.metering import Traffic
from cloud_sync.mirrors import MIRROR_ATTEMPTS, Mirrors, OnLie, split_address
from cloud_sync.registry_auth import RegistryAuth
from cloud_sync.release import Blobs
from cloud_sync.transfer import OciClient
from cloud_sync.trust.tls import Now
from cloud_sync.watch import Watch

if TYPE_CHECKING:
    import httpx


class RegistrySettings(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to ask, and how quickly: addresses in their order, bytes a second (0: no bound)."""

    fleet_url: str
    mirrors: tuple[str, ...] = ()
    max_bytes_s: int = 0


class Registries:
    """See the module; what `cloud_sync.mirrors.Mirrors` does, of the settings of each moment.

    Args:
        settings: those of the moment.
        auth: the credentials for the fleet's registry.
        mirror_auth: the credentials for a mirror's address; None where everybody may pull.
        on_lie: told of a mirror that gave something else.
        sleep: waits between attempts; may raise to stop.
        now: the time by which their certificates are judged; the wall clock by default.
    """

    def __init__(
        self,
        settings: Callable[[], RegistrySettings],
        auth: "httpx.Auth | None",
        *,
        mirror_auth: "Callable[[str], httpx.Auth | None]" = lambda _address: None,
        on_lie: OnLie | None = None,
        sleep: Callable[[float], None],
        now: Now | None = None,
    ) -> None:
        self._now = now
        self._settings = settings
        self._auth = auth
        self._mirror_auth = mirror_auth
        self._on_lie = on_lie
        self._sleep = sleep
        self._made_of: RegistrySettings | None = None
        self._mirrors: Mirrors | None = None
        self._before = Traffic()

    def document(self, name: str, digest: str, max_bytes: int) -> bytes:
        """See `Mirrors`."""
        return self._current().document(name, digest, max_bytes)

    def fetch_blob(
        self, name: str, digest: str, size: int, blobs: Blobs, watch: Watch | None = None
    ) -> int:
        """See `Mirrors`."""
        return self._current().fetch_blob(name, digest, size, blobs, watch)

    def traffic(self) -> Traffic:
        """What all of them cost until now."""
        now = self._mirrors.traffic() if self._mirrors else Traffic()
        return self._before + now

    @property
    def buffered(self) -> int:
        """See `Mirrors`."""
        return self._mirrors.buffered if self._mirrors else 0

    def cut(self) -> None:
        """See `Mirrors`."""
        if (mirrors := self._mirrors) is not None:
            mirrors.cut()

    def close(self) -> None:
        """Close the connections."""
        if self._mirrors is not None:
            self._mirrors.close()
            self._before += self._mirrors.traffic()
            self._mirrors = None

    def _current(self) -> Mirrors:
        settings = self._settings()
        if self._mirrors is None or settings != self._made_of:
            self.close()
            self._made_of = settings
            self._mirrors = self._make(settings)
        return self._mirrors

    def _make(self, settings: RegistrySettings) -> Mirrors:
        pace = Pace(most_bytes_s=settings.max_bytes_s)
        asked = [
            OciClient(
                base,
                # Public ones may want a token, too, which everybody gets.
                self._mirror_auth(address) or RegistryAuth(base),
                prefix=prefix,
                pace=pace,
                attempts=MIRROR_ATTEMPTS,
                sleep=self._sleep,
                now=self._now,
            )
            for address in settings.mirrors
            for base, prefix in [split_address(address)]
        ]
        fleet = OciClient(
            settings.fleet_url, self._auth, pace=pace, sleep=self._sleep, now=self._now
        )
        return Mirrors([*asked, fleet], self._on_lie)
