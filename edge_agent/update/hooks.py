"""What the update of a model asks of the agent around it."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cloud_sync.evidence import Evidence
from edge_agent.loaded import LoadedRelease
from edge_agent.update.machine import Event, ModelState


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. `trusted` takes model, version and digest, and raises.

    `now` is the fleet's time as far as it is proven, in Unix seconds; None where it is not.
    """

    apply: Callable[[str, Event], ModelState]
    evidence: Callable[[Evidence], None]
    go_live: Callable[[str, LoadedRelease], LoadedRelease | None]
    retire: Callable[[str], LoadedRelease | None]
    stuck_s: Callable[[str], float]
    abandon: Callable[[str], None]
    running: Callable[[str], LoadedRelease | None]
    site: Callable[[str], Mapping[str, Any]]
    version: Callable[[], tuple[int, int]]
    trusted: Callable[[str, str, str], None]
    now: Callable[[], float | None] = lambda: None
