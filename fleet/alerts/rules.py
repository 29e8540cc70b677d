"""When alerts fire: thresholds that an operator may set; 0 turns a rule off."""

from typing import Any

import msgspec

from edgeml.errors import UserError

DAY_S = 86400.0


class AlertRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The thresholds.

    `device_offline_s`: how long a device may be silent; `device_offline_each`: so many devices
    have an alert of their own, more of them are one alert together. `security_event_s`: how
    long a security event is one. `expiry_s`: how long before its end what is signed is told of.
    `disk_free_share`: of the fleet's disk. `ingest_waiting`: messages that wait to be stored.
    `webhook_dead_s`: how long a delivery that was given up is told of. `registry_behind_s`: how
    long a release may fail to be pushed to the external registry.
    """

    device_offline_s: float = 900.0
    device_offline_each: int = 50
    security_event_s: float = DAY_S
    expiry_s: float = 30 * DAY_S
    disk_free_share: float = 0.1
    ingest_waiting: int = 1000
    webhook_dead_s: float = DAY_S
    registry_behind_s: float = 60.0


_MOST: dict[str, float] = {"disk_free_share": 1.0, "device_offline_each": 1000}
_LARGEST = 1e9


def parse_rules(settings: dict[str, Any]) -> AlertRules:
    """Check rules that an operator wrote; what is not named gets its default.

    Raises:
        UserError: a name is not known, or a value is out of its range.
    """
    what = "The alert rules cannot be used."
    try:
        rules = msgspec.convert(settings, AlertRules)
    except msgspec.ValidationError as error:
        known = ", ".join(AlertRules.__struct_fields__)
        raise UserError(what, why=f"{error}.", fix=f"They are {known}.") from None
    for name in AlertRules.__struct_fields__:
        value, most = getattr(rules, name), _MOST.get(name, _LARGEST)
        if not 0 <= value <= most:
            raise UserError(what, why=f"{name} is {value}; it may be from 0 to {most:g}.")
    return rules
