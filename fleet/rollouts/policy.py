"""A rollout's policy: the TOML file an operator writes, parsed strictly.

soak_s = 600                 # how long a wave must hold its gates
selector = "site=north"      # which devices; everything by default
on_failure = "rollback"      # or "pause": leave the devices as they are

[[waves]]
count = 1                    # the canary
[[waves]]
percent = 100

[gates]
min_evidence = 1             # committed devices a hardware class that a wave needs
max_latency_p95_ratio = 3.0

[trial]                      # what each device must hold before it commits
min_inferred = 50

[limits]
max_failures = 0
device_timeout_s = 3600
"""

import math
import re
import tomllib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cloud_sync.messages import TrialPolicy
from edgeml.errors import UserError
from fleet.rollouts.selector import parse_selector

MAX_POLICY_BYTES = 1 << 16

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


def parse_policy(data: bytes | str) -> Policy:
    """Parse a policy's TOML.

    Raises:
        UserError: it is not TOML, or a key or value is wrong; names the line.
    """
    what = "The policy cannot be used."
    if len(data) > MAX_POLICY_BYTES:
        raise UserError(what, why=f"It is larger than {MAX_POLICY_BYTES} bytes.")
    try:
        text = data.decode() if isinstance(data, bytes) else data
        tree = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(what, why=f"It is not valid TOML: {error}.") from None
    try:
        policy = msgspec.convert(tree, Policy)
    except msgspec.ValidationError as error:
        raise UserError(what, why=_with_line(str(error), text)) from None
    _check(policy, tree, what)
    return policy


def _check(policy: Policy, tree: dict[str, Any], what: str) -> None:
    parse_selector(policy.selector)
    unknown = set(tree.get("trial", {})) - set(TrialPolicy.__struct_fields__)
    if unknown:
        raise UserError(
            what,
            why=f"[trial] has no key {', '.join(sorted(unknown))}.",
            fix=f"It knows {', '.join(TrialPolicy.__struct_fields__)}.",
        )
    for number, wave in enumerate(policy.waves, 1):
        if (wave.count is None) == (wave.percent is None):
            raise UserError(what, why=f"Wave {number} needs a count or a percent, and one only.")
    numbers = list(msgspec.structs.asdict(policy.trial).values())
    if any(not math.isfinite(value) or value < 0 for value in numbers):
        raise UserError(what, why="A number in [trial] is negative or not finite.")


def _with_line(message: str, text: str) -> str:
    """Add the line of the key that msgspec's message names."""
    unknown = re.search(r"unknown field `(\w+)`", message)
    path = re.search(r"at `\$\.?([^`]*)`", message)
    names = re.findall(r"[A-Za-z_]\w*", path[1]) if path else []
    key = unknown[1] if unknown else (names[-1] if names else "")
    for number, row in enumerate(text.splitlines(), 1):
        if key and re.search(rf"(?<!\w){re.escape(key)}(?!\w)", row.split("#")[0]):
            return f"Line {number}: {message}."
    return f"{message}."
