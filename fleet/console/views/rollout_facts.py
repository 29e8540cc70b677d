"""What there is to know of a rollout beside where it stands. Pure."""

from collections.abc import Iterator

from fleet.console.views.plan import money
from fleet.console.views.wording import clock, size
from fleet.resources import RolloutInfo

_ON_FAILURE = {
    "rollback": "stops, and takes it back from every device",
    "rollback-failed": "stops, and takes it back from those that failed",
    "pause": "pauses, and waits for an operator",
}
_APPROVAL = {"before-start": "before it starts", "each-wave": "before each wave"}


def facts(info: RolloutInfo) -> list[tuple[str, str]]:
    """Names and values."""
    return list(_facts(info))


def _facts(info: RolloutInfo) -> Iterator[tuple[str, str]]:
    policy = info["policy"]
    yield "Rollout", info["id"]
    yield "Made", f"{clock(info['created_at'])} by {info['created_by']}"
    if info["finished_at"]:
        yield "Ended", clock(info["finished_at"])
    yield "Devices", policy.get("selector") or "all"
    yield "If a gate fails", _ON_FAILURE[policy.get("on_failure", "rollback")]
    yield "Approval", _APPROVAL.get(policy.get("approval") or "", "nobody is asked")
    for given in info["approvals"]:
        why = f": {given['reason']}" if given["reason"] else ""
        yield f"Wave {given['wave'] + 1} approved", f"by {given['by']}{why}"
    for given in info["overrides"]:
        yield "Overridden", f"{given['gate']} by {given['by']}: {given['reason']}"
    cost = info["cost"]
    if cost is not None:
        yield "Cost so far", f"{size(cost['bytes'])}, {money(cost['money'], cost['currency'])}"
