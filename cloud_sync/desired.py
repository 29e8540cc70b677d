"""Whether a device takes a desired state: a pure decision, made once and journalled."""

from collections.abc import Mapping
from enum import StrEnum

from cloud_sync.messages import DesiredState, decode
from cloud_sync.trust import PayloadType, PublicKey, open_envelope
from edgeml.errors import RemoteError, TrustError

Version = tuple[int, int]


class Refusal(StrEnum):
    """Why a device refuses a desired state."""

    FORGED = "forged"
    OF_ANOTHER = "of another device"
    OLDER = "older"
    EXPIRED = "expired"


class StateError(TrustError):
    """A desired state that this device does not take, and why."""

    def __init__(self, refusal: Refusal, why: str, fix: str = "") -> None:
        super().__init__("A desired state was refused.", why=why, fix=fix)
        self.refusal = refusal


def accept(
    envelope: bytes,
    *,
    device: str,
    keys: Mapping[str, PublicKey],
    last: Version,
    now: float | None,
) -> DesiredState:
    """Verify a desired state and return it.

    The version that the device holds already is accepted again (a repeated message); an
    older one is not.

    Args:
        envelope: the DSSE envelope's JSON.
        device: this device's id.
        keys: the director keys, by key id.
        last: (epoch, counter) of the last state accepted; (0, 0) before the first.
        now: a trusted time in Unix seconds, or None where there is none.

    Raises:
        StateError: wrong key, another device's, older than `last`, or expired.
    """
    try:
        state = decode(open_envelope(envelope, keys, PayloadType.DESIRED), DesiredState)
    except (TrustError, RemoteError) as error:
        raise StateError(Refusal.FORGED, f"{error}") from error
    if state.device != device:
        raise StateError(
            Refusal.OF_ANOTHER, f"It is for {state.device[:64]!r}, this is {device!r}."
        )
    version = (state.epoch, state.counter)
    if version < last:
        raise StateError(
            Refusal.OLDER,
            f"Its version {version} is older than {last}, which this device holds.",
        )
    if now is not None and now > state.expires_at and version != last:
        raise StateError(
            Refusal.EXPIRED,
            f"It expired {now - state.expires_at:.0f} seconds ago.",
            "Check the device's clock and the fleet's.",
        )
    return state
