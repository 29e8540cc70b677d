"""Captured frames: their list, and the frames as a tar."""

import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx

from edgeml.errors import RemoteError
from fleet.client.connection import Connection, error_of
from fleet.resources import SampleInfo

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

PULLED_AT_ONCE = 200


class SampleCalls(Connection):
    """Captured frames: their list, and the frames as a tar."""

    def samples(
        self,
        *,
        model: str = "",
        device: str = "",
        selector: str = "",
        reasons: Sequence[str] = (),
        limit: int | None = None,
    ) -> list[SampleInfo]:
        """The frames that devices brought up, newest first."""
        asked: dict[str, object] = {"model": model, "device": device, "selector": selector}
        asked = {name: value for name, value in asked.items() if value} | {"reason": list(reasons)}
        return list(itertools.islice(self._pages("/samples", **asked), limit))

    @contextmanager
    def pull_samples(
        self,
        model: str,
        *,
        device: str = "",
        selector: str = "",
        reasons: Sequence[str] = (),
        after: int = 0,
        reason: str = "",
    ) -> Iterator[io.RawIOBase]:
        """Frames that came after the one with the number `after`, oldest first.

        Gives the stream of a tar (`fleet.sample_archive`), to be read within the block.
        """
        body = {
            "model": model,
            "device": device,
            "selector": selector,
            "reasons": list(reasons),
            "after": after,
            "limit": PULLED_AT_ONCE,
            "reason": reason,
        }
        try:
            with self._client.stream("POST", "/api/v1/samples/pull", json=body) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                yield _Streamed(response.iter_bytes())
        except httpx.HTTPError as error:
            raise RemoteError(
                f"The frames did not come whole from {self._base_url}.",
                why=f"{type(error).__name__}: {error}.",
                fix="Pull again: it goes on where it stopped.",
            ) from error


class _Streamed(io.RawIOBase):
    """What comes, as a file that is read once."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        while not self._rest:
            try:
                self._rest = next(self._pieces)
            except StopIteration:
                return 0
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
