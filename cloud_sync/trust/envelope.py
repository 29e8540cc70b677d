"""DSSE envelopes: a payload, what kind it is, and who signed both.

Source: DSSE protocol and envelope 1.0 (secure-systems-lab/dsse). The signature is over
PAE(type, payload) = "DSSEv1 len(type) type len(payload) payload"; base64 may be of the standard
or of the URL-safe alphabet; a key id is a hint that may be absent.

Written on `cryptography`, which a device carries for its certificate anyway, and not on
`securesystemslib.dsse`: there a signature without a key id or a second one under the same id is
an error that is not its own, sizes and counts are not bounded, keys come in TUF's metadata form
with ids of another making, and what is left is the thirty lines below. The two are tested
against each other.
"""

import base64
import binascii
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from msgspec import Meta

from cloud_sync.trust.keys import PrivateKey, PublicKey, key_id
from edgeml.errors import TrustError

MAX_ENVELOPE_BYTES = 2 << 20
_URL_SAFE = str.maketrans("-_", "+/")


class PayloadType(StrEnum):
    """What an envelope of edgeml can hold; one is never taken for another."""

    DESIRED = "application/vnd.edgeml.desired.v1+json"
    ACK = "application/vnd.edgeml.ack.v1+json"
    COMMAND = "application/vnd.edgeml.command.v1+json"
    BATCH = "application/vnd.edgeml.batch.v1+json"
    HELLO = "application/vnd.edgeml.hello.v1+json"
    TOKEN = "application/vnd.edgeml.token.v1+json"
    TIME = "application/vnd.edgeml.time.v1+json"
    RENEWAL = "application/vnd.edgeml.renewal.v1+json"
    ROOT = "application/vnd.edgeml.root.v1+json"
    SAMPLE = "application/vnd.edgeml.sample.v1+json"


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """A key's id and its signature, base64."""

    keyid: Annotated[str, Meta(max_length=128)] = ""
    sig: Annotated[str, Meta(max_length=1024)]


class Envelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The envelope as it stands in JSON; `payload` is base64."""

    payload_type: str
    payload: str
    signatures: Annotated[tuple[Signature, ...], Meta(min_length=1, max_length=16)]


def pae(payload_type: str, payload: bytes) -> bytes:
    """The bytes that are signed.

    >>> pae("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign(payload: bytes, payload_type: PayloadType, key: PrivateKey) -> bytes:
    """Sign a payload and return the envelope's JSON."""
    signature = Signature(
        keyid=key_id(key.public_key()),
        sig=base64.b64encode(key.sign(pae(payload_type, payload))).decode(),
    )
    return msgspec.json.encode(
        Envelope(
            payload_type=payload_type,
            payload=base64.b64encode(payload).decode(),
            signatures=(signature,),
        )
    )


def open_envelope(data: bytes, keys: Mapping[str, PublicKey], payload_type: PayloadType) -> bytes:
    """Verify an envelope and return its payload.

    Args:
        data: the envelope's JSON.
        keys: the keys that may sign it, by key id.
        payload_type: what it must hold.

    Raises:
        TrustError: it cannot be read, holds something else, or none of the keys signed it.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise TrustError("An envelope was refused.", why=f"It has {len(data)} bytes.")
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
        payload = _unbase64(envelope.payload)
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError) as error:
        raise TrustError("An envelope could not be read.", why=f"{error}.") from None
    if envelope.payload_type != payload_type:
        raise TrustError(
            "An envelope was refused.",
            why=f"It holds {envelope.payload_type[:80]!r}, not {payload_type.value!r}.",
        )
    signed = pae(envelope.payload_type, payload)
    for signature in envelope.signatures:
        named = keys.get(signature.keyid)
        for key in keys.values() if not signature.keyid else [named] if named else []:
            try:
                key.verify(_unbase64(signature.sig), signed)
            except (InvalidSignature, binascii.Error, ValueError):
                continue
            return payload
    raise TrustError(
        "A signature was refused.",
        why="None of the keys that may sign this did.",
        fix="A key that was rotated is followed through TUF (docs/trust.md); else enrol again.",
    )


def is_by_another(data: bytes, keys: Mapping[str, PublicKey]) -> bool:
    """Whether an envelope names a key that is none of these; what cannot be read names none."""
    try:
        signed = msgspec.json.decode(data, type=Envelope).signatures
    except (msgspec.DecodeError, RecursionError, ValueError):
        return False
    return any(signature.keyid and signature.keyid not in keys for signature in signed)


def _unbase64(text: str) -> bytes:
    standard = text.translate(_URL_SAFE) if "-" in text or "_" in text else text
    return binascii.a2b_base64(standard, strict_mode=True)
