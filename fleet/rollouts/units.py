"""What waves count where devices switch together: whole groups, and devices that are alone."""

from collections import defaultdict
from collections.abc import Iterable

from fleet.rollouts.observe import DeviceObservation
from fleet.rollouts.policy import Policy

Unit = tuple[str, str]


def unit(device: DeviceObservation) -> Unit:
    """What waves count: a device's group, or itself where it has none."""
    return (device.group, "") if device.group else ("", device.device)


def reached_units(
    policy: Policy,
    number: int,
    reached: set[Unit],
    fresh: Iterable[DeviceObservation],
) -> list[list[DeviceObservation]]:
    """The fresh devices that wave `number` reaches, by unit: whole groups.

    Those whose group has the release come first. Of the others those come first that show a
    hardware class that the rollout has not met.
    """
    units: dict[Unit, list[DeviceObservation]] = defaultdict(list)
    for device in sorted(fresh, key=lambda d: d.device):
        units[unit(device)].append(device)
    joining = [found for key, found in sorted(units.items()) if key in reached]
    others = {key: found for key, found in sorted(units.items()) if key not in reached}
    room = max(0, policy.wave(number).size(len(reached) + len(others)) - len(reached))
    met: set[str] = set()
    # One of each class by turns would part groups: the first that shows a new class, then by name.
    first = [key for key, found in others.items() if _meets_more(met, found)]
    then = [key for key in others if key not in set(first)]
    return [*joining, *(others[key] for key in [*first, *then][:room])]


def _meets_more(met: set[str], devices: Iterable[DeviceObservation]) -> bool:
    classes = {device.hardware_class for device in devices}
    more = bool(classes - met)
    met |= classes
    return more
