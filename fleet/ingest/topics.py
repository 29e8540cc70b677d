"""The topics that the fleet listens to, and who speaks on them."""

from dataclasses import dataclass
from functools import lru_cache

from cloud_sync.messages import TOPIC_ROOT, Up

GROUP = "fleet"
MAX_DEVICE = 64
_NAMES = frozenset(map(str, Up))


@dataclass(frozen=True, slots=True)
class Address:
    """Who a message on the bus says it is from, and what it is."""

    device: str
    kind: Up


def subscriptions(*, shared: bool = False) -> list[str]:
    """The topic filters of everything that devices send.

    Args:
        shared: whether other consumers take their part of it: each message goes to one of them.
            Presence is left out: it is retained, and who shares is given nothing that is retained
            (`fleet.presence`).

    >>> subscriptions(shared=True)[:2]
    ['$share/fleet/edgeml/v1/+/up/hello', '$share/fleet/edgeml/v1/+/up/state']
    """
    if shared:
        return [f"$share/{GROUP}/{TOPIC_ROOT}/+/{name}" for name in Up if name is not Up.PRESENCE]
    return [f"{TOPIC_ROOT}/+/{name}" for name in Up]


@lru_cache(maxsize=1 << 16)
def parse_topic(topic: str) -> Address | None:
    """Read a topic that devices publish on; None for any other.

    >>> parse_topic("edgeml/v1/cam-1/up/state")
    Address(device='cam-1', kind=<Up.STATE: 'up/state'>)
    """
    head, _, rest = topic.removeprefix(f"{TOPIC_ROOT}/").partition("/")
    named = 0 < len(head) <= MAX_DEVICE and head.isprintable()
    if not topic.startswith(f"{TOPIC_ROOT}/") or not named or rest not in _NAMES:
        return None
    return Address(device=head, kind=Up(rest))
