"""Whether a device signed a batch: the quick way to say yes.

`cloud_sync.trust.open_envelope` says why not; this only says yes or None, with libsodium, which
verifies an Ed25519 signature in half the time that OpenSSL takes. Whatever is refused here is
judged again by the other, so that there is one place that refuses.
"""

import binascii
from typing import Any

import msgspec
from nacl.bindings import crypto_sign_open
from nacl.exceptions import CryptoError

from cloud_sync.messages import MAX_MESSAGE_BYTES, MESSAGE_VERSION, Batch
from cloud_sync.trust.envelope import MAX_ENVELOPE_BYTES, Envelope, PayloadType, pae
from fleet.opening.reading import ReadBatch, read, why_not

_envelope: msgspec.json.Decoder[Envelope] = msgspec.json.Decoder(Envelope)
_batch: msgspec.json.Decoder[Batch] = msgspec.json.Decoder(Batch)
# What broken input can raise on its way through; it is judged by the slower way.
_BROKEN: tuple[type[Exception], ...] = (
    msgspec.DecodeError,
    CryptoError,
    binascii.Error,
    ValueError,
    RecursionError,
)


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """An envelope, whose it should be, and that device's key: its id and its 32 bytes."""

    device: str
    key: str
    public: bytes
    envelope: bytes


def opened(asked: Asked) -> ReadBatch | None:
    """The batch in an envelope, read; None where anything about it is not as it should be."""
    try:
        payload = _payload(asked)
        if payload is None or len(payload) > MAX_MESSAGE_BYTES:
            return None
        batch = _batch.decode(payload)
    except _BROKEN:
        return None
    if batch.version != MESSAGE_VERSION or batch.device != asked.device or why_not(batch):
        return None
    return read(batch, asked.key)


def _payload(asked: Asked) -> bytes | None:
    if len(asked.envelope) > MAX_ENVELOPE_BYTES:
        return None
    envelope = _envelope.decode(asked.envelope)
    if envelope.payload_type != PayloadType.BATCH or len(envelope.signatures) != 1:
        return None
    (signature,) = envelope.signatures
    if signature.keyid not in {"", asked.key}:
        return None
    payload = binascii.a2b_base64(envelope.payload, strict_mode=True)
    signed = binascii.a2b_base64(signature.sig, strict_mode=True)
    told: Any = crypto_sign_open(signed + pae(envelope.payload_type, payload), asked.public)
    return payload if told else None
