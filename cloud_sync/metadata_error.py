"""What is offered as the fleet's signed word, and is not: perhaps only on this way, or only now."""

from edgeml.errors import TrustError


class MetadataError(TrustError):
    """Metadata are damaged, stale or forged.

    A proxy, a cut link or an old cache does that as well as an attacker: asked for again they may
    be whole. That a release is not signed is another matter: whole metadata say it.
    """
