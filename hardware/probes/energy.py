"""How much energy the device has used: counters of the processor or of a sensor on its supply.

    powercap (RAPL)   /sys/class/powercap/intel-rapl:N/energy_uj, of Intel's and AMD's processors
    hwmon             energyN_input (microjoules), else powerN_average or powerN_input (microwatts)

Where the kernel tells of nothing, or of several supplies without saying which is the whole, there
is no figure: none is better than a wrong one. Only root reads RAPL on most systems.

>>> EnergyMeter(Path("/nowhere")).joules() is None
True
"""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from hardware.probes import files

_TOP_ZONE = re.compile(r"intel-rapl:[0-9]+")
_WHOLE_PLATFORM = "psys"
_WHOLE_SUPPLY = re.compile(r"(?i)vdd_in|pom_5v_in|total|input power|^pin$")
_MICRO = 1e-6


class EnergyMeter:
    """Adds up what the device uses from now on; safe to use from several threads.

    A counter is read when it is asked; of a sensor that tells power alone, the time between two
    readings counts with the mean of both, so that it wants to be asked often.

    Attributes:
        source: `rapl`, `hwmon-energy` or `hwmon-power`; empty where there is nothing.

    Args:
        root: of the file system.
        clock: monotonic seconds.
    """

    def __init__(self, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._used = 0.0
        self._counters = _rapl(root)
        self.source = "rapl" if self._counters else ""
        if not self._counters:
            self._counters = _of_supply(root, "energy", ("input",))
            self.source = "hwmon-energy" if self._counters else ""
        self._power = [] if self._counters else _of_supply(root, "power", ("average", "input"))
        if self._power:
            self.source = "hwmon-power"
        self._last = {path: files.number(path) for path in (*self._counters, *self._power)}
        self._at = clock()

    def joules(self) -> float | None:
        """The energy used since this was made, in joules; None where nothing tells."""
        if not self.source:
            return None
        with self._lock:
            return self._read()

    def _read(self) -> float | None:
        now = self._clock()
        seconds, self._at = now - self._at, now
        for path in self._counters:
            self._used += self._counted(path) * _MICRO
        for path in self._power:
            before, power = self._last[path], files.number(path)
            self._last[path] = power
            if power is not None and power >= 0:
                mean = power if before is None else (before + power) / 2
                self._used += mean * _MICRO * seconds
        known = any(value is not None for value in self._last.values())
        return self._used if known else None

    def _counted(self, path: Path) -> int:
        """What a counter counted since the last time; it begins again at its end."""
        before, value = self._last[path], files.number(path)
        self._last[path] = value
        if before is None or value is None:
            return 0
        if value >= before:
            return value - before
        span = files.number(path.with_name("max_energy_range_uj"))
        return value - before + span if span else 0


def _rapl(root: Path) -> list[Path]:
    """The counter of the platform, else those of all processor packages."""
    zones = [
        folder
        for folder in files.each(root / "sys/class/powercap", "intel-rapl:*")
        if _TOP_ZONE.fullmatch(folder.name) and files.number(folder / "energy_uj") is not None
    ]
    platform = [zone for zone in zones if files.text(zone / "name") == _WHOLE_PLATFORM]
    return [zone / "energy_uj" for zone in platform[:1] or zones]


def _of_supply(root: Path, what: str, kinds: tuple[str, ...]) -> list[Path]:
    """The one sensor of the device's whole supply."""
    found: dict[tuple[Path, str], Path] = {}
    for kind in kinds:
        for path in files.each(root / "sys/class/hwmon", f"hwmon*/{what}[0-9]*_{kind}"):
            channel = path.name.removesuffix(f"_{kind}")
            if files.number(path) is not None:
                found.setdefault((path.parent, channel), path)
    whole = [
        path
        for (folder, channel), path in found.items()
        if _WHOLE_SUPPLY.search(files.text(folder / f"{channel}_label"))
    ]
    chosen = whole if len(whole) == 1 else list(found.values())
    return chosen if len(chosen) == 1 else []
