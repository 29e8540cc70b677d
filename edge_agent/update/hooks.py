"""What the update of a model asks of the agent around it."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from cloud_sync.evidence import Evidence
from cloud_sync.update_machine import Event, ModelState
from edge_agent.loaded import LoadedRelease


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """See the module. `trusted` takes model, version and digest, and raises.

    `now` is the fleet's time as far as it is proven, in Unix seconds; None where it is not.
    `closed` is why no update may go on now, since no window is open; empty where it may.
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
    closed: Callable[[], str] = str
