"""Who may do what: a device publishes and subscribes below `edgeml/v1/{its id}/` only.

>>> may_use("cam-1", "edgeml/v1/cam-1/up/state")
True
>>> may_use("cam-1", "edgeml/v1/cam-10/up/state"), may_use("cam-1", "edgeml/v1/+/down/#")
(False, False)
"""

from cloud_sync.messages import TOPIC_ROOT
from fleet.broker.credentials import SUPERUSER


def may_use(username: str, topic: str) -> bool:
    """Return whether `username` may publish to this topic, or subscribe to this filter."""
    return username == SUPERUSER or topic.startswith(f"{TOPIC_ROOT}/{username}/")


def may_be_named(username: str, client_id: str) -> bool:
    """Return whether `username` may connect under this client id.

    A device's is its id. The fleet may have several clients, `edgeml-fleet-...`. A username
    with a wildcard or a level of its own would widen the rule for topics.
    """
    if not username or set(username) & set("+#/$"):
        return False
    return client_id == username or (
        username == SUPERUSER and client_id.startswith(f"{SUPERUSER}-")
    )
