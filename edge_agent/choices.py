"""The outcome of each race, kept on this device: `choices.json`.

A choice holds for one release and variant with these runtime versions on this kind of device;
with another of them there is none, and the race is run again. A lost file costs a race.
"""

import hashlib
import logging
import os
import threading
from pathlib import Path

import msgspec

from cloud_sync.messages import DesiredModel
from cloud_sync.release import Variant, write_atomically
from edge_agent.execution import Execution, executions
from hardware.capabilities import Capabilities

log = logging.getLogger(__name__)

MAX_KEPT = 64
MAX_BYTES = 1 << 20


class Choices:
    """What runs each variant on this device; safe to use from several threads.

    Args:
        path: the file.
        capabilities: what the device is.
        threads: the number of threads where it is set by hand, else 0.
        spin: whether an inference's threads spin while they wait.
    """

    def __init__(
        self, path: Path, capabilities: Capabilities, *, threads: int = 0, spin: bool = False
    ) -> None:
        self.spin = spin
        self._path = path
        self._capabilities = capabilities
        self._threads = threads
        self._cpus = len(os.sched_getaffinity(0))
        self._lock = threading.Lock()
        self._kept = _read(path)

    def candidates(self, variant: Variant) -> tuple[Execution, ...]:
        """Everything that may run a variant here.

        Raises:
            ModelError: nothing may.
        """
        return executions(variant, self._capabilities, cpus=self._cpus, threads=self._threads)

    def of(self, desired: DesiredModel, variant: Variant) -> Execution:
        """What runs a variant here: as it was chosen, else the first that may.

        Raises:
            ModelError: nothing may.
        """
        candidates = self.candidates(variant)
        with self._lock:
            chosen = self._kept.get(self._key(desired))
        return chosen if chosen in candidates else candidates[0]

    def is_known(self, desired: DesiredModel) -> bool:
        """Whether the race was run."""
        with self._lock:
            return self._key(desired) in self._kept

    def keep(self, desired: DesiredModel, chosen: Execution) -> None:
        """Keep the outcome of a race; a disk that will not take it loses it at the next start."""
        with self._lock:
            key = self._key(desired)
            self._kept.pop(key, None)
            self._kept[key] = chosen
            for old in list(self._kept)[:-MAX_KEPT]:
                del self._kept[old]
            try:
                write_atomically(self._path, msgspec.json.encode(self._kept), 0o600)
            except OSError as error:
                log.warning("the choice of a runtime is not kept: %s", error)

    def _key(self, desired: DesiredModel) -> str:
        has = self._capabilities
        runtimes = sorted(f"{r.name} {r.version}" for r in has.runtimes)
        kind = (has.hardware_class, has.cpu.model, str(self._cpus), str(self._threads))
        parts = (desired.release, desired.variant, *runtimes, *kind)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read(path: Path) -> dict[str, Execution]:
    try:
        with path.open("rb") as stream:
            return msgspec.json.decode(stream.read(MAX_BYTES), type=dict[str, Execution])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning("%s cannot be read (%s); the races are run again", path, error)
        return {}
