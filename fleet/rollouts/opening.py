"""When the windows of a policy, and those of devices' own, let devices be updated."""

from collections.abc import Callable, Iterable

from cloud_sync.windows import UpdateWindow, opens_in, overlap
from fleet.rollouts.observe import DeviceObservation
from fleet.rollouts.policy import Policy
from fleet.rollouts.units import Unit, unit

Opens = Callable[[DeviceObservation], float]
_MAX_NAMED = 3


def opening(policy: Policy, now: float) -> Opens:
    """How many seconds until a device's windows open, the policy's and its own; 0 while they are.

    Devices are mostly alike: it is worked out once for all that are.
    """
    known: dict[tuple[int | None, tuple[UpdateWindow, ...]], float] = {}

    def opens(device: DeviceObservation) -> float:
        if not policy.windows and not device.windows:
            return 0.0
        key = device.utc_offset_s, device.windows
        if key not in known:
            both = (policy.windows, device.windows)
            known[key] = max(opens_in(windows, now, device.utc_offset_s) for windows in both)
        return known[key]

    return opens


def in_vain(
    policy: Policy, devices: Iterable[DeviceObservation], now: float
) -> list[DeviceObservation]:
    """The devices that wait for ever.

    The windows of all that must be given the release at one time, the policy's and their own, have
    no such time.
    """
    units: dict[Unit, list[DeviceObservation]] = {}
    for device in devices:
        units.setdefault(unit(device), []).append(device)
    known: dict[frozenset[tuple[tuple[UpdateWindow, ...], int | None]], bool] = {}
    found: list[DeviceObservation] = []
    for members in units.values():
        if len(members) == 1 and not (policy.windows and members[0].windows):
            continue  # one window set always has a time
        each = frozenset(
            (windows, device.utc_offset_s)
            for device in members
            for windows in (policy.windows, device.windows)
            if windows
        )
        if each not in known:
            known[each] = overlap(each, now)
        found += [] if known[each] else members
    return found


def told_in_vain(policy: Policy, devices: Iterable[DeviceObservation]) -> str:
    """Why they do, and what to change.

    `no time is in the windows of cam-1, cam-2 at once: they wait for ever; change them`.
    """
    names = sorted(device.device for device in devices)
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    whose = f"{'the policy, ' if policy.windows else ''}{', '.join(names[:_MAX_NAMED])}{more}"
    return f"no time is in the windows of {whose} at once: they wait for ever; change the windows"
