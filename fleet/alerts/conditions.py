"""Which conditions hold: from facts about the fleet to findings, without clock or database."""

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec

from fleet.alerts.rules import DAY_S, AlertRules
from fleet.services.external import External

_MAX_SUMMARY = 500
_GIGABYTE = 1e9
_MAX_NAMED = 100


class Kind(StrEnum):
    """What an alert is about."""

    DEVICE_OFFLINE = "device-offline"
    DEVICES_OFFLINE = "devices-offline"
    ROLLOUT_HALTED = "rollout-halted"
    GATE_FAILED = "gate-failed"
    SECURITY_EVENT = "security-event"
    EXPIRY = "expiry"
    DISK_LOW = "disk-low"
    INGEST_BACKLOG = "ingest-backlog"
    WEBHOOK_DEAD = "webhook-dead"
    REGISTRY_BEHIND = "registry-behind"
    FROZEN = "frozen"


class Severity(StrEnum):
    """How soon somebody should look."""

    CRITICAL = "critical"
    WARNING = "warning"


SEVERITY = {
    Kind.DEVICE_OFFLINE: Severity.WARNING,
    Kind.DEVICES_OFFLINE: Severity.CRITICAL,
    Kind.ROLLOUT_HALTED: Severity.CRITICAL,
    Kind.GATE_FAILED: Severity.CRITICAL,
    Kind.SECURITY_EVENT: Severity.CRITICAL,
    Kind.EXPIRY: Severity.WARNING,
    Kind.DISK_LOW: Severity.CRITICAL,
    Kind.INGEST_BACKLOG: Severity.WARNING,
    Kind.WEBHOOK_DEAD: Severity.WARNING,
    Kind.REGISTRY_BEHIND: Severity.WARNING,
    Kind.FROZEN: Severity.CRITICAL,
}


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """A condition that holds; `kind`, `subject` and `which` say which, whatever its numbers."""

    kind: Kind
    subject: str
    which: str = ""
    summary: str
    detail: dict[str, Any] = {}

    @property
    def key(self) -> str:
        """The same while the condition holds."""
        return f"{self.kind}:{self.subject}:{self.which}"


class Silent(msgspec.Struct, frozen=True):
    """A device, and when it last spoke."""

    device: str
    last_seen: float


class Troubled(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that stopped by itself, or whose gates failed: `gates` by name, with why."""

    rollout: str
    stopped: bool
    sentence: str
    gates: tuple[tuple[str, str], ...] = ()


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Security events of one device and kind: how many, and the newest."""

    device: str
    kind: str
    number: int
    newest: float
    detail: str


class Ends(msgspec.Struct, frozen=True):
    """Something signed that expires, and how long before that it is told of."""

    name: str
    expires_at: float
    soon_s: float
    fix: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the fleet knows at one moment. `silent` has at most one more than get their own."""

    now: float
    silent: tuple[Silent, ...] = ()
    silent_number: int = 0
    rollouts: tuple[Troubled, ...] = ()
    refused: tuple[Refused, ...] = ()
    ends: tuple[Ends, ...] = ()
    disk_free: int = 0
    disk_total: int = 0
    ingest_waiting: float = 0.0
    dead: dict[str, int] = {}
    registry: External = External()
    frozen: str = ""


def findings(rules: AlertRules, facts: Facts) -> list[Finding]:
    """The conditions that hold, each key once."""
    found = (
        *_silent(rules, facts),
        *_rollouts(facts),
        *_refused(facts),
        *_ends(facts),
        *_machine(rules, facts),
        *_registry(rules, facts),
    )
    return list({finding.key: finding for finding in found}.values())


def _silent(rules: AlertRules, facts: Facts) -> Iterator[Finding]:
    if facts.silent_number > rules.device_offline_each:
        yield Finding(
            kind=Kind.DEVICES_OFFLINE,
            subject="fleet",
            summary=f"{facts.silent_number} devices have been silent for more than "
            f"{lasted(rules.device_offline_s)}.",
            detail={"devices": facts.silent_number},
        )
        return
    for one in facts.silent:
        yield Finding(
            kind=Kind.DEVICE_OFFLINE,
            subject=one.device,
            summary=f"{one.device} has been silent for more than {lasted(rules.device_offline_s)}.",
            detail={"last_seen": one.last_seen},
        )


def _rollouts(facts: Facts) -> Iterator[Finding]:
    for one in facts.rollouts:
        if one.stopped:
            yield Finding(
                kind=Kind.ROLLOUT_HALTED,
                subject=one.rollout,
                summary=_cut(f"The rollout {one.rollout} has stopped. {one.sentence}"),
            )
        if one.gates:
            names = ", ".join(name for name, _ in one.gates)
            yield Finding(
                kind=Kind.GATE_FAILED,
                subject=one.rollout,
                summary=_cut(f"A gate of {one.rollout} failed: {names}. {one.gates[0][1]}"),
                detail={"gates": [{"name": n, "reason": why} for n, why in one.gates]},
            )


def _refused(facts: Facts) -> Iterator[Finding]:
    for one in facts.refused:
        who = one.device or "somebody"
        yield Finding(
            kind=Kind.SECURITY_EVENT,
            subject=one.device,
            which=one.kind,
            summary=_cut(f"{one.kind} of {who}, {one.number} times. {one.detail}"),
            detail={"event": one.kind, "number": one.number, "newest": one.newest},
        )


def _ends(facts: Facts) -> Iterator[Finding]:
    for one in facts.ends:
        left = one.expires_at - facts.now
        if left < one.soon_s:
            when = f"expires in {lasted(left)}" if left > 0 else f"expired {lasted(-left)} ago"
            yield Finding(
                kind=Kind.EXPIRY,
                subject=one.name,
                summary=f"{one.name} {when}. {one.fix}",
                detail={"expires_at": one.expires_at},
            )


def _machine(rules: AlertRules, facts: Facts) -> Iterator[Finding]:
    if facts.disk_total and facts.disk_free < rules.disk_free_share * facts.disk_total:
        share = 100 * facts.disk_free / facts.disk_total
        yield Finding(
            kind=Kind.DISK_LOW,
            subject="fleet",
            summary=f"{share:.0f} % of the fleet's disk are free, "
            f"{facts.disk_free / _GIGABYTE:,.0f} GB. "
            "Make room: edgeml releases gc, or keep less (--keep-mb).",
            detail={"free_bytes": facts.disk_free, "total_bytes": facts.disk_total},
        )
    if rules.ingest_waiting and facts.ingest_waiting > rules.ingest_waiting:
        yield Finding(
            kind=Kind.INGEST_BACKLOG,
            subject="fleet",
            summary=f"More than {rules.ingest_waiting} messages wait to be stored: "
            "the database does not follow.",
            detail={"waiting": facts.ingest_waiting},
        )
    for webhook, number in facts.dead.items():
        yield Finding(
            kind=Kind.WEBHOOK_DEAD,
            subject=webhook,
            summary=f"{number} events were given up for the webhook {webhook}. "
            f"See why: edgeml webhooks show {webhook}",
            detail={"dead": number},
        )
    if facts.frozen:
        yield Finding(kind=Kind.FROZEN, subject="fleet", summary=_cut(facts.frozen))


def _registry(rules: AlertRules, facts: Facts) -> Iterator[Finding]:
    bound = facts.now - rules.registry_behind_s
    failed = sorted((f for f in facts.registry.failed.values() if f.since <= bound),
                    key=lambda one: (one.since, one.name))  # fmt: skip
    if rules.registry_behind_s and failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        yield Finding(
            kind=Kind.REGISTRY_BEHIND,
            subject="fleet",
            summary=_cut(
                f"{failed[0].name}{more} could not be pushed to {facts.registry.url}; devices "
                f"have it from the fleet itself. {failed[0].why}"
            ),
            detail={"releases": [one.name for one in failed[:_MAX_NAMED]]},
        )


def lasted(seconds: float) -> str:
    """A time in its largest unit.

    >>> lasted(900), lasted(30 * 86400)
    ('15 min', '30 d')
    """
    for unit, length in (("d", DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _cut(text: str) -> str:
    return " ".join(text.split())[:_MAX_SUMMARY]
