"""How hard a device may work when it is warm: the duty cycle of its inference.

A device that throttles itself makes every frame slow; one that idles between frames stays quick
and misses some, which are counted. The policy is pure; the figures are the kernel's.

    >>> cool, hot = Heat(celsius=50.0), Heat(celsius=85.0)
    >>> next_duty(hot, 1.0), next_duty(cool, 0.5)
    (0.8, 0.6)
"""

from pathlib import Path

import msgspec

HOT_C = 80.0
MARGIN_C = 12.0  # below the temperature at which the kernel switches the device off
EASED_C = 5.0
WARM_C = 15.0
HELD_BACK = 0.9
LESS, MORE = 0.8, 0.1
MIN_DUTY = 0.2


class Heat(msgspec.Struct, frozen=True, kw_only=True):
    """The warmest zone, where the kernel gives up, and how much of its clock may be used.

    Unknown temperatures are None; `usual_share` is the highest `clock_share` seen so far: a limit
    that someone has set is no throttling.
    """

    celsius: float | None = None
    critical_c: float | None = None
    clock_share: float = 1.0
    usual_share: float = 1.0

    @property
    def hot_c(self) -> float:
        """From where on the device is too warm."""
        return HOT_C if self.critical_c is None else min(HOT_C, self.critical_c - MARGIN_C)

    @property
    def throttles(self) -> bool:
        """Whether the device is too warm, or its clock is held back because it was."""
        if self.celsius is not None and self.celsius >= self.hot_c:
            return True
        held_back = self.clock_share < HELD_BACK * self.usual_share
        return held_back and (self.celsius is None or self.celsius >= self.hot_c - WARM_C)

    @property
    def is_at_ease(self) -> bool:
        """Whether it may work harder again."""
        warm = self.celsius is not None and self.celsius > self.hot_c - EASED_C
        return not warm and not self.throttles


def read_heat(root: Path = Path("/"), usual_share: float = 0.0) -> Heat:
    """What the kernel tells now, below another root for a recorded tree."""
    from hardware.probes import thermal

    hottest, share = thermal.hottest(root), thermal.clock_share(root)
    return Heat(
        celsius=hottest.celsius if hottest else None,
        critical_c=thermal.critical_c(root),
        clock_share=share,
        usual_share=max(share, usual_share),
    )


def celsius(root: Path = Path("/")) -> float | None:
    """How warm the warmest zone is; None where the kernel tells of none."""
    from hardware.probes import thermal

    found = thermal.hottest(root)
    return found.celsius if found else None


def next_duty(heat: Heat, duty: float) -> float:
    """The share of its time that inference may take next: down quickly, up in small steps."""
    if heat.throttles:
        return max(MIN_DUTY, round(duty * LESS, 3))
    if heat.is_at_ease:
        return min(1.0, round(duty + MORE, 3))
    return duty
