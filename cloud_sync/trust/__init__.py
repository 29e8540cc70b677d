"""Who said it: keys, signed envelopes, device certificates and device tokens.

Signatures are Ed25519 in DSSE envelopes; `envelope` says why on `cryptography` alone.
"""

from cloud_sync.trust.envelope import (
    Envelope,
    PayloadType,
    is_by_another,
    open_envelope,
    sign,
)
from cloud_sync.trust.keys import PrivateKey, PublicKey, generate, key_id, load_key, save_key

__all__ = [
    "Envelope",
    "PayloadType",
    "PrivateKey",
    "PublicKey",
    "generate",
    "is_by_another",
    "key_id",
    "load_key",
    "open_envelope",
    "save_key",
    "sign",
]
