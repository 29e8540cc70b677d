"""What becomes of alerts: a condition that begins to hold fires, one that ends is resolved."""

from collections.abc import Iterable, Mapping

import msgspec

from fleet.alerts.conditions import Finding


class Firing(msgspec.Struct, frozen=True):
    """An alert that fires: which condition, and how it was last told."""

    key: str
    summary: str


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What to do with alerts: keys of `told` and `resolved` are those of alerts that fire."""

    fired: tuple[Finding, ...] = ()
    told: tuple[Finding, ...] = ()
    resolved: tuple[str, ...] = ()


def turn(firing: Iterable[Firing], found: Iterable[Finding]) -> Turn:
    """Compare what fires with what holds.

    A condition that goes on is told anew only with another sentence, and that is no event.
    """
    known: Mapping[str, Firing] = {alert.key: alert for alert in firing}
    holds = {finding.key: finding for finding in found}
    return Turn(
        fired=tuple(f for key, f in holds.items() if key not in known),
        told=tuple(
            f for key, f in holds.items() if key in known and known[key].summary != f.summary
        ),
        resolved=tuple(key for key in known if key not in holds),
    )
