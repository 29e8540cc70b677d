"""What the external registry has of the releases, and why not the rest: for alerts and operators.

Whoever leads writes it down as one fact when it changes; every process of the fleet reads it.
"""

import msgspec
from sqlalchemy.orm import Session

from fleet.services import facts
from fleet.services.context import Services

_FACT = "external-registry"


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A release that could not be pushed: its name, why, and since when (Unix seconds)."""

    name: str
    why: str
    since: float


class External(msgspec.Struct, frozen=True, kw_only=True):
    """The registry's address (empty for none), the digests that it has, and what failed."""

    url: str = ""
    there: frozenset[str] = frozenset()
    failed: dict[str, Failed] = {}

    def of(self, digest: str) -> str:
        """How a release stands there: `pushed`, `waits`, or `not pushed: why`."""
        if not self.url:
            return ""
        if digest in self.failed:
            return f"not pushed: {self.failed[digest].why}"
        return "pushed" if digest in self.there else "waits"


def read(session: Session) -> External:
    """What was last written down."""
    kept = facts.get(session, _FACT)
    return msgspec.json.decode(kept, type=External) if kept else External()


def keep(services: Services, external: External) -> None:
    """Write it down, where it is another."""
    with services.database.read() as session:
        if read(session) == external:
            return
    with services.database.write() as session:
        facts.put(session, _FACT, msgspec.json.encode(external).decode())
    services.changes.announce()
