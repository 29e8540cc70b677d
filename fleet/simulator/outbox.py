"""A device's outbox in memory: numbered records, kept until the fleet has said that it has them."""

import time
from collections.abc import Collection

import msgspec

from cloud_sync.messages import Ack, Batch, Record, RecordKind

MAX_RECORDS = 1000
MAX_TOGETHER = 100


class MemoryOutbox:
    """See the module; what does not fit any more goes at the old end, and is counted.

    Args:
        device: whose.
        stream: its random id; a device that begins anew has another.
        boot_id: of this boot.
    """

    __slots__ = ("_boot_id", "_device", "_next", "_sent", "_waiting", "dropped", "stream")

    def __init__(self, device: str, stream: str, boot_id: str) -> None:
        self.stream = stream
        self.dropped = 0
        self._device = device
        self._boot_id = boot_id
        self._next = 1
        self._waiting: dict[int, Record] = {}
        self._sent: set[int] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def append(self, kind: RecordKind, body: msgspec.Struct, at: float | None) -> None:
        """Keep a record."""
        self._waiting[self._next] = Record(
            seq=self._next,
            kind=kind,
            at=at,
            monotonic=time.monotonic(),
            body=msgspec.Raw(msgspec.json.encode(body)),
        )
        self._next += 1
        if len(self._waiting) > MAX_RECORDS:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            self._sent.discard(oldest)
            self.dropped += 1

    def batch(self, kinds: Collection[RecordKind], *, again: bool = False) -> Batch | None:
        """The next records of some kinds that were not sent; with `again` sent ones, too."""
        found = [
            record
            for seq, record in self._waiting.items()
            if record.kind in kinds and (again or seq not in self._sent)
        ][:MAX_TOGETHER]
        if not found:
            return None
        self._sent.update(record.seq for record in found)
        return Batch(
            device=self._device,
            stream=self.stream,
            boot_id=self._boot_id,
            records=tuple(found),
        )

    def acknowledge(self, ack: Ack) -> None:
        """Let go of what the fleet has stored."""
        if ack.stream != self.stream:
            return
        stored = [
            seq
            for seq in self._waiting
            if seq <= ack.through or any(first <= seq <= last for first, last in ack.ranges)
        ]
        for seq in stored:
            del self._waiting[seq]
            self._sent.discard(seq)

    def forget(self, batch: Batch) -> None:
        """Let go of what will never be acknowledged."""
        for record in batch.records:
            self._waiting.pop(record.seq, None)
            self._sent.discard(record.seq)
