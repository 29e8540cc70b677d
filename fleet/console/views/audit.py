"""The audit log as it is shown. Pure."""

import datetime as dt
import json
from collections.abc import Sequence

from fleet.console import paths
from fleet.console.views.rollout_list import timeline
from fleet.console.views.tables import Cell, Row
from fleet.resources import AuditInfo
from fleet.services.audit import Wanted

DAY_S = 86400.0
SPANS = {"": "At any time", "1": "In the last day", "7": "In 7 days", "30": "In 30 days"}
AREAS = {
    "": "Everything",
    "rollout": "Rollouts",
    "release": "Releases",
    "device": "Devices",
    "enrollment": "Enrolment",
    "user": "Users",
    "token": "Tokens",
    "session": "Sessions",
    "trust": "Trust",
    "configuration": "Configuration",
    "alert": "Alerts",
    "webhook": "Webhooks",
    "prices": "Prices",
    "registry": "Registry",
    "fleet": "The fleet itself",
}


_DONE = {
    "acknowledge": "acknowledged",
    "add": "added",
    "block": "blocked",
    "change": "changed",
    "configure": "configured",
    "create": "created",
    "decommission": "decommissioned",
    "disable": "disabled",
    "enable": "enabled",
    "enroll": "enrolled",
    "init": "begun",
    "label": "labelled",
    "register": "registered",
    "release": "told of a release",
    "remove": "removed",
    "revoke": "revoked",
    "set": "set",
    "unblock": "unblocked",
}


def wanted_of(who: str, area: str, subject: str, days: str, now: float) -> Wanted:
    """Which entries a form asks for; `days` is a key of `SPANS`."""
    since = now - float(days) * DAY_S if days in SPANS and days else 0.0
    return Wanted(who=who.strip(), action=area, subject=subject.strip(), since=since)


def rows(entries: Sequence[AuditInfo]) -> dict[str, Row]:
    """What the table has, by the entries' numbers."""
    return {
        str(entry["seq"]): (
            Cell(words(entry), opens=True),
            Cell(entry["subject"], address_of(entry)),
            entry["reason"],
            entry["actor"],
            moment(entry["at"]),
            str(entry["seq"]),
        )
        for entry in entries
    }


def details(entry: AuditInfo) -> list[tuple[str, str]]:
    """All that there is of one entry."""
    return [
        ("Entry", str(entry["seq"])),
        ("At", moment(entry["at"])),
        ("Who", entry["actor"]),
        ("What", f"{entry['action']} {entry['subject']}"),
        ("Why", entry["reason"] or "no reason was given"),
        ("Detail", json.dumps(entry["detail"], indent=1, sort_keys=True)),
        ("Hash", entry["hash"]),
        ("Hash of the entry before", entry["previous_hash"]),
    ]


def moment(unix: float) -> str:
    """`2026-11-21 20:14:03`, UTC."""
    return dt.datetime.fromtimestamp(unix, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def words(entry: AuditInfo) -> str:
    """What was done, in words: `Device enrolled`."""
    area, _, verb = entry["action"].rpartition(".")
    if area == "rollout":
        return f"Rollout: {timeline([entry])[0].what}"
    return f"{area.capitalize()} {_DONE.get(verb, verb)}".strip()


def address_of(entry: AuditInfo) -> str:
    """Where the subject of an entry is."""
    match entry["action"].partition(".")[0]:
        case "rollout":
            return paths.rollout(entry["subject"])
        case "device" | "enrollment":
            return paths.device(entry["subject"])
        case "release":
            model, _, version = entry["subject"].partition(":")
            return paths.release(model, version.partition(" ")[0])  # `1.1.0 on CLASS`: a block
        case _:
            return paths.to("/audit", subject=entry["subject"])
