"""A rollout's policy: the TOML file an operator writes, parsed strictly.

    selector = "site=north"      # which devices; everything by default
    soak_s = 600                 # how long a wave must hold its gates
    approval = "each-wave"       # or "before-start"; by default nobody is asked
    on_failure = "rollback"      # or "rollback-failed": only those that failed; or "pause"

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

What is left out has the default below; an empty file is the default policy. Windows and the rate
are in `fleet.rollouts.timing`, retries and thresholds in `fleet.rollouts.failures`, devices that
switch together in `fleet.rollouts.together`.
"""

import datetime as dt
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
from fleet.rollouts.failures import Retries, Threshold
from fleet.rollouts.selector import parse_selector
from fleet.rollouts.timing import Rate, Window, is_timezone
from fleet.rollouts.together import Together

MAX_POLICY_BYTES = 1 << 16
# Of a line: the time that `tomllib` takes grows with the square of a dotted key's length.
_MAX_DOTS = 200
_WHAT = "The policy cannot be used."

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Percent = Annotated[float, Meta(gt=0, le=100)]
Bound = Annotated[float, Meta(ge=0)]


class Wave(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many devices have the release when this wave is done: a count or a percentage.

    The next wave begins when all its devices have finished, or `success_percent` of them have
    committed, and its gates held for `soak_s` (the policy's, where the wave says nothing).
    """

    count: Positive | None = None
    percent: Percent | None = None
    soak_s: Seconds | None = None
    success_percent: Percent | None = None

    def size(self, selected: int) -> int:
        """The devices that this wave reaches, of those selected; at least one."""
        if self.count is not None:
            return min(self.count, selected)
        return min(selected, max(1, math.ceil(selected * (self.percent or 0) / 100)))

    def __str__(self) -> str:
        if self.count is not None:
            return f"{self.count} device" + ("s" if self.count > 1 else "")
        return f"{self.percent:g} %"


class Metric(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bound on a figure that devices report, by its name.

    A device has its say once its figure rests on `min_samples`. With `max_failing_percent` some
    devices of a class may be beyond the bound; without, one that is has failed.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    max: float | None = None
    min: float | None = None
    min_samples: Positive = 1
    max_failing_percent: Annotated[float, Meta(ge=0, lt=100)] = 0.0
    unit: Annotated[str, Meta(max_length=16)] = ""


class Gates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a wave must show, in each hardware class by itself."""

    min_evidence: Positive = 1
    max_latency_p95_ratio: Annotated[float, Meta(gt=0)] = 3.0
    latency_slack_ms: Seconds = 5.0
    max_latency_p95_ms: Bound | None = None
    max_error_rate: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_crash_percent: Annotated[float, Meta(ge=0, lt=100)] | None = None
    max_memory_mb: Bound | None = None
    max_temperature_c: float | None = None
    undecided: Literal["wait", "accept"] = "wait"
    metrics: Annotated[tuple[Metric, ...], Meta(max_length=32)] = ()

    def bounds(self) -> tuple[Metric, ...]:
        """The bounds of all metrics, the well-known ones first."""
        known = (
            ("latency_p95_ms", self.max_latency_p95_ms, "ms"),
            ("error_rate", self.max_error_rate, ""),
            ("memory_mb", self.max_memory_mb, "MB"),
            ("temperature_c", self.max_temperature_c, "°C"),
        )
        named = (
            Metric(name=name, max=most, unit=unit) for name, most, unit in known if most is not None
        )
        return (*named, *self.metrics)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds that hold in every wave; without thresholds `max_failures` is 0.

    `queued` says what of the timeout holds for a device that has not answered yet: `fail`, its
    time runs from when it was given the release; `wait`, from its first answer on, and anew with
    each further step.
    """

    in_flight: Positive = 1000
    device_timeout_s: Annotated[float, Meta(gt=0)] = 3600.0
    queued: Literal["fail", "wait"] = "fail"
    max_failures: Annotated[int, Meta(ge=0)] | None = None
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
    on_failure: Literal["rollback", "rollback-failed", "pause"] = "rollback"
    block_class: bool = False
    approval: Literal["before-start", "each-wave", False] = False
    membership: Literal["dynamic", "fixed", "continuous"] = "dynamic"
    start_at: Annotated[dt.datetime, Meta(tz=True)] | None = None
    windows: Annotated[tuple[Window, ...], Meta(max_length=20)] = ()
    rate: Rate | None = None
    together: Together | None = None
    retries: Retries = Retries()
    thresholds: Annotated[tuple[Threshold, ...], Meta(max_length=20)] = ()
    gates: Gates = Gates()
    limits: Limits = Limits()
    trial: TrialPolicy = TrialPolicy()

    @property
    def failures_allowed(self) -> int | None:
        """The devices that may fail; None where only the thresholds say."""
        if self.limits.max_failures is None and self.thresholds:
            return None
        return self.limits.max_failures or 0

    def wave(self, number: int) -> Wave:
        """A wave by its number, from 0; beyond the last it is the last."""
        return self.waves[min(number, len(self.waves) - 1)]

    def soak_of(self, number: int) -> float:
        """How long that wave must hold its gates, in seconds."""
        own = self.wave(number).soak_s
        return self.soak_s if own is None else own


_TABLES: dict[str, type[msgspec.Struct]] = {
    "waves": Wave,
    "windows": Window,
    "rate": Rate,
    "together": Together,
    "retries": Retries,
    "thresholds": Threshold,
    "gates": Gates,
    "limits": Limits,
    "trial": TrialPolicy,
}
_INNER: dict[str, dict[str, type[msgspec.Struct]]] = {"gates": {"metrics": Metric}}


def schema() -> dict[str, Any]:
    """The JSON Schema of a policy (draft 2020-12), for editors and other tools."""
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(Policy)))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The policy of an edgeml rollout",
        **found,
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
        if max(line.count(".") for line in text.split("\n")) > _MAX_DOTS:
            raise ValueError("a line has too many dots")
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
    for path, table, kind in _below((), tree, _TABLES):
        yield path, table, kind
        yield from _below(path, table, _INNER.get(str(path[0]), {}))


def _below(
    path: Path, tree: dict[str, Any], kinds: dict[str, type[msgspec.Struct]]
) -> Iterator[tuple[Path, dict[str, Any], type[msgspec.Struct]]]:
    for name, kind in kinds.items():
        value = tree.get(name)
        if isinstance(value, dict):
            yield (*path, name), value, kind
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, dict):
                    yield (*path, name, index), item, kind


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
    together, trial = policy.together, policy.trial
    if together and together.commit_timeout_s < trial.soak_s + together.switch_after_s:
        yield ("together", "commit_timeout_s"), f"is less than a trial takes ({trial.soak_s:g} s)"
    yield from _mistakes_of_gates(policy)
    yield from _mistakes_of_timing(policy)


def _mistakes_of_gates(policy: Policy) -> Iterator[tuple[Path, str]]:
    for index, metric in enumerate(policy.gates.metrics):
        if metric.max is None and metric.min is None:
            yield ("gates", "metrics", index), "needs a max, a min or both"


def _mistakes_of_timing(policy: Policy) -> Iterator[tuple[Path, str]]:
    for index, window in enumerate(policy.windows):
        if not is_timezone(window.timezone):
            what = f'{window.timezone[:64]!r} is neither "device" nor a time zone'
            yield ("windows", index, "timezone"), f'{what} such as "Europe/Berlin"'
    rate = policy.rate
    if rate is None:
        return
    after = (rate.increase_after_given, rate.increase_after_committed)
    if all(after):
        yield ("rate",), "increases after two things; keep one of increase_after_*"
    if rate.increment_factor > 1 and not any(after):
        yield ("rate",), "increases, and does not say when: give increase_after_committed"


def _of_msgspec(message: str) -> tuple[Path, str]:
    """The path and the complaint of an error such as "Expected `int` - at `$.waves[0].count`"."""
    complaint, _, at = message.partition(" - at `$")
    found = re.findall(r"\.(\w+)|\[(\d+)\]", at)
    path = tuple(name or int(index) for name, index in found)
    complaint = complaint.replace(" | null`", "`")  # TOML has none
    if "matching regex" in complaint:
        complaint = 'must be a time of day such as "22:00"'
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
