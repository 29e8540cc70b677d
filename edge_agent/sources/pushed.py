"""Frames that another part of this process pushes; see `PushSource`."""

import threading
from typing import Any

from numpy.typing import NDArray

from cloud_sync.messages import SourceConfig
from edge_agent.sources.interface import Kind, address


class PushReader:
    """Gives nothing itself: what is pushed is delivered by who pushes."""

    kind: Kind = "events"
    fps = 0.0

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def read(self) -> tuple[float, NDArray[Any]] | None:
        """Wait for the end."""
        self._stop.wait()
        return None

    def close(self) -> None:
        """Nothing is open."""


def check_push(config: SourceConfig) -> None:
    """Refuse options, of which there are none."""
    address(config.uri)


def open_push(config: SourceConfig, stop: threading.Event) -> PushReader:
    """`push:`."""
    check_push(config)
    return PushReader(stop)
