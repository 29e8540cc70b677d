"""The fleet's own settings as they are shown. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import tomli_w

from fleet.alerts.resources import AlertRulesInfo
from fleet.configuration_resources import ConfigurationPlan, LayerInfo
from fleet.console.views.wording import ago, plural, size
from fleet.cost_resources import PricesInfo
from fleet.resources import RetentionInfo
from fleet.trust.status import RoleInfo, TrustInfo
from fleet.webhooks.resources import WebhookInfo

DAY_S = 86400.0
FLEET_LAYER = "fleet"
_MB = 1e6
_BUDGET = {
    "month_bytes": "a month",
    "rollout_bytes": "a rollout",
    "month_begins": "the month begins on day",
    "when_spent": "when spent:",
}
_SOON_S = 60 * DAY_S
_KEEPS = {
    "records_days": ("Telemetry and other records", "--keep-days"),
    "records_bytes": ("and of them at most", "--keep-mb"),
    "proofs_days": ("Evidence and security events", "--keep-proofs-days"),
    "minute_days": ("Telemetry by the minute", "--keep-minute-days"),
    "hour_days": ("Telemetry by the hour", "--keep-hour-days"),
    "day_days": ("Telemetry by the day", "--keep-day-days"),
    "device_days": ("The hours of each device", "--keep-device-days"),
    "ledger_days": ("What devices spent on the network", "--keep-ledger-days"),
    "samples_days": ("Captured frames", "--keep-samples-days"),
    "samples_bytes": ("and of each model at most", "--keep-samples-gb"),
}
RULES = {
    "device_offline_s": "A device is silent for, s",
    "device_offline_each": "Devices with an alert of their own",
    "security_event_s": "A security event is told of for, s",
    "expiry_s": "What is signed ends in, s",
    "disk_free_share": "Free share of the disk",
    "ingest_waiting": "Messages that wait to be stored",
    "webhook_dead_s": "A failed delivery is told of for, s",
    "registry_behind_s": "A release is not pushed for, s",
}


class KeyLine(msgspec.Struct, frozen=True, kw_only=True):
    """A role of TUF: who signs it, and until when."""

    role: str
    signs: str
    keys: str
    expires: str
    tone: str


class BudgetLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer lets its devices spend, in words and as figures."""

    layer: str
    whom: str
    text: str
    settings: dict[str, Any]
    month_mb: float | None
    rollout_mb: float | None
    month_begins: int
    when_spent: str


class HookLine(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook and how it goes."""

    id: str
    url: str
    events: str
    state: str
    tone: str


def key_lines(trust: TrustInfo, now: float) -> tuple[KeyLine, ...]:
    """The roles, in the order of trust."""
    return tuple(_role(role, now) for role in trust["roles"])


def own_keys(trust: TrustInfo) -> list[tuple[str, str]]:
    """The keys that the fleet itself uses."""
    return [
        (
            {"director": "Signs desired states", "ca": "Signs devices' certificates"}.get(
                key["key"], key["key"]
            ),
            f"{key['id'][:16]}"
            + (f", {plural(key['retired'], 'old key')} still good" if key["retired"] else "")
            + (", waits to be announced" if key["announced"] else ""),
        )
        for key in trust["own_keys"]
    ]


def kept(retention: RetentionInfo) -> list[tuple[str, str]]:
    """How long what is kept, and the option that says so."""
    return [
        (name, f"{_amount(key, retention)} ({option})") for key, (name, option) in _KEEPS.items()
    ]


def prices_text(prices: PricesInfo) -> str:
    """The prices as the TOML file that `edgeml` reads."""
    found = [{k: v for k, v in dict(price).items() if v != ""} for price in prices["prices"]]
    return tomli_w.dumps({"currency": prices["currency"], "prices": found})


def budgets(layers: Sequence[LayerInfo]) -> tuple[BudgetLine, ...]:
    """What each layer of the configuration says of data budgets; the fleet's is always there."""
    lines = tuple(_budget_line(one["layer"], one["selector"], one["settings"]) for one in layers)
    if any(one.layer == FLEET_LAYER for one in lines):
        return lines
    return (_budget_line(FLEET_LAYER, "", {}), *lines)


def with_budget(settings: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All that a layer says, with another data budget; an empty figure is no bound.

    >>> with_budget({"telemetry_every_s": 5}, {"month_mb": 40.0, "rollout_mb": None,
    ...     "month_begins": 1, "when_spent": "wait"})
    {'telemetry_every_s': 5, 'data_budget': {'month_bytes': 40000000, 'when_spent': 'wait'}}

    Args:
        settings: what the layer says.
        given: `month_mb` and `rollout_mb`, `month_begins` (1 to 28), `when_spent`.
    """
    others = {name: value for name, value in settings.items() if name != "data_budget"}
    bounds: dict[str, Any] = {
        f"{name}_bytes": round(float(given[f"{name}_mb"]) * _MB)
        for name in ("month", "rollout")
        if given[f"{name}_mb"] not in {None, ""}
    }
    if not bounds:
        return others
    if "month_bytes" in bounds and int(given["month_begins"] or 1) != 1:
        bounds["month_begins"] = int(given["month_begins"])
    return {**others, "data_budget": {**bounds, "when_spent": given["when_spent"]}}


def planned(plan: ConfigurationPlan) -> list[str]:
    """What a change of a layer does to how many devices, a line each."""
    changed, same, unfit = (plan["counts"][name] for name in ("changed", "same", "unfit"))
    lines = [f"{plural(changed, 'device')} {'is' if changed == 1 else 'are'} given it, in waves."]
    if same:
        lines.append(f"{plural(same, 'device')} {'has' if same == 1 else 'have'} it by now.")
    if unfit:
        why = next(one["reason"] for one in plan["devices"] if not one["fits"])
        lines.append(f"{plural(unfit, 'device')} cannot have it: {why}")
    return lines


def hook_lines(hooks: Sequence[WebhookInfo]) -> tuple[HookLine, ...]:
    """The webhooks."""
    return tuple(_hook(hook) for hook in hooks)


def changed_rules(rules: AlertRulesInfo, values: Mapping[str, Any]) -> dict[str, Any]:
    """All rules with some of them changed; whole numbers as they are."""
    held: dict[str, Any] = dict(rules)
    for name, value in values.items():
        if value is not None:
            held[name] = int(value) if isinstance(held[name], int) else float(value)
    return held


def _role(role: RoleInfo, now: float) -> KeyLine:
    left = role["expires_at"] - now
    names = ", ".join(
        f"{key['name'] or key['id'][:12]}{' (held by the fleet)' if key['online'] else ''}"
        for key in role["keys"]
    )
    signs = f"{', '.join(role['models'])} " if role["models"] else ""
    return KeyLine(
        role=role["role"],
        signs=f"{signs}version {role['version']}",
        keys=f"{role['threshold']} of {len(role['keys'])}: {names}",
        expires=f"expires in {ago(left)}" if left > 0 else "has expired",
        tone="bad" if left <= 0 else "warn" if left < _SOON_S and not _renews(role) else "good",
    )


def _renews(role: RoleInfo) -> bool:
    """Whether the fleet renews it by itself."""
    return sum(key["online"] for key in role["keys"]) >= role["threshold"]


def _amount(key: str, retention: RetentionInfo) -> str:
    value: Any = dict(retention)[key]
    return size(int(value)) if key.endswith("_bytes") else f"{value:g} days"


def _budget_line(layer: str, selector: str, settings: Mapping[str, Any]) -> BudgetLine:
    held: Mapping[str, Any] = settings.get("data_budget") or {}
    return BudgetLine(
        layer=layer,
        whom=selector or "all devices",
        text=", ".join(_budget(held)) or "no bound",
        settings=dict(settings),
        month_mb=_mb(held.get("month_bytes")),
        rollout_mb=_mb(held.get("rollout_bytes")),
        month_begins=held.get("month_begins", 1),
        when_spent=held.get("when_spent", "wait"),
    )


def _mb(count: int | None) -> float | None:
    return None if count is None else count / _MB


def _budget(budget: Mapping[str, Any]) -> Iterator[str]:
    for name, value in budget.items():
        if value is not None:
            text = size(value) if name.endswith("_bytes") else f"{value}"
            yield f"{_BUDGET.get(name, name)} {text}"


def _hook(hook: WebhookInfo) -> HookLine:
    told = (
        f"{hook['delivered']:,} delivered, {hook['waiting']:,} waiting, {hook['dead']:,} given up"
    )
    if hook["disabled"]:
        state, tone = f"disabled: {hook['disabled']}", "bad"
    elif hook["dead"] or hook["last_error"]:
        state, tone = f"{told}. {hook['last_error']}".rstrip(". "), "warn"
    else:
        state, tone = told, "good"
    return HookLine(
        id=hook["id"],
        url=hook["url"],
        events=", ".join(hook["events"]) or "all events",
        state=state,
        tone=tone,
    )
