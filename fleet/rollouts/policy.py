"""A rollout's policy: the TOML file an operator writes, parsed strictly.

    selector = "site=north"      # which devices; everything by default
    soak_s = 600                 # how long a wave must hold its gates
    on_failure = "rollback"      # or "pause": leave the devices as they are

    [[waves]]
    count = 1                    # the canary
    [[waves]]
    percent = 100

    [gates]
    min_evidence = 1             # devices with evidence that a hardware class of a wave needs
    max_latency_p95_ratio = 3.0  # against the release before, on the same device

    [trial]                      # what each device must hold before it commits
    min_inferred = 50

    [limits]
    in_flight = 1000
    max_failures = 0
    device_timeout_s = 3600
    data_budget_mb = 40          # what it may cost each device on the network; 0: no bound

What is left out has the default below; an empty file is the default policy.
"""

import math
import re
import tomllib
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cloud_sync.messages import TrialPolicy
from edgeml.errors import UserError
from edgeml.toml_lines import Path, line_of
from fleet.rollouts.selector import parse_selector

MAX_POLICY_BYTES = 1 << 16
_WHAT = "The policy cannot be used."

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]


class Wave(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many devices have the release when this wave is done: a count or a percentage."""

    count: Positive | None = None
    percent: Annotated[float, Meta(gt=0, le=100)] | None = None

    def size(self, selected: int) -> int:
        """The devices that this wave reaches, of those selected; at least one."""
        if self.count is not None:
            return min(self.count, selected)
        return min(selected, max(1, math.ceil(selected * (self.percent or 0) / 100)))

    def __str__(self) -> str:
        if self.count is not None:
            return f"{self.count} device" + ("s" if self.count > 1 else "")
        return f"{self.percent:g} %"


class Gates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a wave must show, in each hardware class by itself."""

    min_evidence: Positive = 1
    max_latency_p95_ratio: Annotated[float, Meta(gt=0)] = 3.0
    latency_slack_ms: Seconds = 5.0


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds that hold in every wave."""

    in_flight: Positive = 1000
    device_timeout_s: Annotated[float, Meta(gt=0)] = 3600.0
    max_failures: Annotated[int, Meta(ge=0)] = 0
    data_budget_mb: Annotated[float, Meta(ge=0, le=1e9)] = 0.0

    @property
    def data_budget_bytes(self) -> int:
        """What the rollout may cost each device on the network; 0 is no bound."""
        return round(self.data_budget_mb * 1e6)


DEFAULT_WAVES = (Wave(count=1), Wave(percent=5.0), Wave(percent=25.0), Wave(percent=100.0))


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See the module."""

    selector: str = ""
    waves: Annotated[tuple[Wave, ...], Meta(min_length=1, max_length=50)] = DEFAULT_WAVES
    soak_s: Seconds = 60.0
    on_failure: Literal["rollback", "pause"] = "rollback"
    gates: Gates = Gates()
    limits: Limits = Limits()
    trial: TrialPolicy = TrialPolicy()


_TABLES: dict[str, type[msgspec.Struct]] = {
    "waves": Wave,
    "gates": Gates,
    "limits": Limits,
    "trial": TrialPolicy,
}


def parse_policy(data: bytes | str) -> Policy:
    """Parse a policy's TOML.

    Raises:
        UserError: it is not TOML, or a key or value is wrong; names line and key.
    """
    if len(data) > MAX_POLICY_BYTES:
        raise UserError(_WHAT, why=f"It is larger than {MAX_POLICY_BYTES} bytes.")
    try:
        text = data.decode() if isinstance(data, bytes) else data
        tree = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise UserError(_WHAT, why=f"It is not valid TOML: {error}.") from None
    _refuse_unknown(tree, text)
    try:
        policy = msgspec.convert(tree, Policy)
    except msgspec.ValidationError as error:
        raise _wrong(text, *_of_msgspec(str(error))) from None
    for path, message in _mistakes(policy, tree):
        raise _wrong(text, path, message)
    try:
        parse_selector(policy.selector)
    except UserError as error:
        raise _wrong(text, ("selector",), error.what, fix=error.fix) from None
    return policy


def _refuse_unknown(tree: dict[str, Any], text: str) -> None:
    """Refuse keys that nothing knows, before msgspec does: it cannot say which are known."""
    for path, table, kind in _tables(tree):
        known = kind.__struct_fields__
        for key in table:
            if key not in known:
                fix = f"Known here: {', '.join(known)}."
                raise _wrong(text, (*path, key), "is not known", fix=fix)


def _tables(tree: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any], type[msgspec.Struct]]]:
    yield (), tree, Policy
    for name, kind in _TABLES.items():
        value = tree.get(name)
        if isinstance(value, dict):
            yield (name,), value, kind
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield (name, index), item, kind


def _mistakes(policy: Policy, tree: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    """What the types cannot say."""
    for path, table, _ in _tables(tree):
        for key, value in table.items():
            if isinstance(value, float) and not math.isfinite(value):
                yield (*path, key), "must be a finite number"
    for index, wave in enumerate(policy.waves):
        if (wave.count is None) == (wave.percent is None):
            yield ("waves", index), "needs a count or a percent, and one only"
    for key, value in msgspec.structs.asdict(policy.trial).items():
        if value < 0:
            yield ("trial", key), f"must not be negative, but is {value:g}"


def _of_msgspec(message: str) -> tuple[Path, str]:
    """The path and the complaint of an error such as "Expected `int` - at `$.waves[0].count`"."""
    complaint, _, at = message.partition(" - at `$")
    found = re.findall(r"\.(\w+)|\[(\d+)\]", at)
    path = tuple(name or int(index) for name, index in found)
    return path, complaint[:1].lower() + complaint[1:]


def _wrong(text: str, path: Path, message: str, fix: str = "") -> UserError:
    number = line_of(text, path)
    name = ""
    for part in path:
        name += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if name else part
    place = f"Line {number}: " if number else ""
    return UserError(
        _WHAT, why=f"{place}{name} {message.rstrip('.')}.".replace(":  ", ": "), fix=fix
    )
