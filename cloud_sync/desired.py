"""Whether a device takes a desired state: a pure decision, made once and journalled."""

from collections.abc import Mapping

import msgspec

from cloud_sync.messages import DesiredState, decode
from cloud_sync.trust import PayloadType, PublicKey, open_envelope
from edgeml.errors import RemoteError, TrustError

Version = tuple[int, int]


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """What a device knows of the time; no device's clock is trusted against the fleet's word.

    `proven` is the latest time that the fleet has proven. A wall clock behind it is wrong, and
    there is no trusted time. One ahead of it may be right or wrong: by it a state is refused
    that came as a hint, which anyone on the way may have held back, but not the fleet's own
    answer to this device's question. So a device whose clock is far ahead hears of a new state
    late, and not never.
    """

    wall: float
    proven: float

    @property
    def of_hint(self) -> float | None:
        """The time by which a state is judged that came unasked."""
        return self.wall if self.wall >= self.proven else None

    @property
    def of_answer(self) -> float | None:
        """The time by which the fleet's answer is judged."""
        return self.proven if self.wall >= self.proven else None


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
        TrustError: wrong key, another device's, older than `last`, or expired.
    """
    payload = open_envelope(envelope, keys, PayloadType.DESIRED)
    try:
        state = decode(payload, DesiredState)
    except RemoteError as error:
        raise TrustError("A desired state was refused.", why=str(error)) from error
    if state.device != device:
        raise TrustError(
            "A desired state was refused.",
            why=f"It is for {state.device[:64]!r}, this is {device!r}.",
        )
    version = (state.epoch, state.counter)
    if version < last:
        raise TrustError(
            "A desired state was refused.",
            why=f"Its version {version} is older than {last}, which this device holds.",
        )
    if now is not None and now > state.expires_at and version != last:
        raise TrustError(
            "A desired state was refused.",
            why=f"It expired {now - state.expires_at:.0f} seconds ago.",
            fix="Check the device's clock and the fleet's.",
        )
    return state
