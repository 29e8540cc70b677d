"""What agents and fleets of released versions have said, as scripts/record_messages.py kept it."""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloud_sync.trust import PayloadType, PrivateKey, PublicKey, key_id, open_envelope, sign
from cloud_sync.trust.keys import load_public

WIRE = Path(__file__).parent / "data" / "wire"
# Their keys are names that somebody gave, not fields of a message.
_NAMED = frozenset(
    ("models", "sources", "latency", "classes", "site", "software", "buckets", "placement")
)


@dataclass(frozen=True)
class Exchange:
    """A request and its answer, over HTTPS."""

    method: str
    path: str
    body: bytes
    status: int
    type: str
    answer: bytes


class Recording:
    """One released version's conversation."""

    def __init__(self, version: str) -> None:
        folder = WIRE / version
        facts = json.loads((folder / "facts.json").read_text())
        self.version = version
        self.device: str = facts["device"]
        self.recorded_at: float = facts["recorded_at"]
        self.key = PrivateKey.from_private_bytes(base64.b64decode(facts["device_key"]))
        director = load_public(facts["director"])
        self.directors: dict[str, PublicKey] = {key_id(director): director}
        self.messages = [
            (one["topic"].partition(f"{self.device}/")[2], one["payload"].encode())
            for one in _lines(folder / "mqtt.jsonl")
        ]
        self.exchanges = [
            Exchange(**{**one, "body": one["body"].encode(), "answer": one["answer"].encode()})
            for one in _lines(folder / "http.jsonl")
        ]

    def on(self, name: str) -> list[bytes]:
        """The messages of a topic, in their order."""
        return [payload for topic, payload in self.messages if topic == name]

    def said(self, envelope: bytes, kind: PayloadType) -> Any:
        """What the device has signed."""
        public = self.key.public_key()
        return json.loads(open_envelope(envelope, {key_id(public): public}, kind))

    def changed(self, envelope: bytes, kind: PayloadType, change: Callable[[Any], Any]) -> bytes:
        """What the device has signed, changed and signed again."""
        return sign(json.dumps(change(self.said(envelope, kind))).encode(), kind, self.key)


def versions() -> list[str]:
    """The versions that were recorded, oldest first."""
    return sorted(folder.name for folder in WIRE.iterdir() if folder.is_dir())


def with_more(value: Any, *, named: bool = False) -> Any:
    """The message of a later version: every object in it has fields that are not known yet."""
    if isinstance(value, list):
        return [with_more(item) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: with_more(item, named=key in _NAMED) for key, item in value.items()}
    return found if named else found | {"x_of_later": {"a": [1, None]}, "x_more": "text"}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
