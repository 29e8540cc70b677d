"""The form that a policy is made with: its fields, and the TOML file and command that say the same.

The truth is the tree of a TOML file, of what differs from the defaults: the form reads and writes
single values of it, and whoever writes TOML instead replaces it whole. Pure.
"""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import tomli_w

from edgeml.errors import UserError
from fleet.rollouts import Policy, parse_policy

Tree = dict[str, Any]
Path = tuple[str, ...]
FILE = "policy.toml"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A value of a policy: where it is, what it is called, what it means.

    `choices` are its values and their words; a field without is a number, or text where `is_text`.
    """

    path: Path
    label: str
    help: str = ""
    unit: str = ""
    is_text: bool = False
    choices: Mapping[Any, str] = {}

    @property
    def name(self) -> str:
        """As the file names it: `gates.max_error_rate`."""
        return ".".join(self.path)


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that are thought of together."""

    title: str
    help: str
    fields: tuple[Field, ...]


BEGIN = Section(
    title="When it begins",
    help="By default at once, and nobody is asked.",
    fields=(
        Field(
            path=("approval",),
            label="Approval",
            help="By somebody else than who makes the rollout.",
            choices={
                False: "Nobody is asked",
                "before-start": "Before it starts",
                "each-wave": "Before each wave",
            },
        ),
        Field(
            path=("start_at",),
            label="Not before",
            help="A date with a time zone, such as 2026-12-01T02:00:00Z; empty: at once.",
            is_text=True,
        ),
        Field(
            path=("membership",),
            label="Devices that join later",
            choices={
                "dynamic": "Are taken in while it runs",
                "fixed": "Are left out",
                "continuous": "Are taken in for ever",
            },
        ),
    ),
)

GATES = Section(
    title="What a wave must show",
    help="In each hardware class by itself; a wave advances when every gate holds for its soak.",
    fields=(
        Field(path=("soak_s",), label="Soak of a wave", unit="s", help="How long gates must hold."),
        Field(
            path=("gates", "min_evidence"),
            label="Devices with evidence",
            help="That each hardware class of a wave needs.",
        ),
        Field(
            path=("gates", "max_latency_p95_ratio"),
            label="Latency p95, times the release before",
            help="On the same device.",
        ),
        Field(path=("gates", "max_latency_p95_ms"), label="Latency p95, at most", unit="ms"),
        Field(
            path=("gates", "max_error_rate"),
            label="Error rate, at most",
            help="A share: 0.01 is 1 %. Its 95 % interval decides.",
        ),
        Field(path=("gates", "max_crash_percent"), label="Devices that may crash", unit="%"),
        Field(path=("gates", "max_memory_mb"), label="Memory, at most", unit="MB"),
        Field(path=("gates", "max_temperature_c"), label="Temperature, at most", unit="°C"),
        Field(
            path=("gates", "undecided"),
            label="A gate that cannot be decided",
            choices={"wait": "Waits until it can", "accept": "Counts as passed"},
        ),
    ),
)

TRIAL = Section(
    title="On each device",
    help="The trial that a device holds before it commits; else it goes back by itself.",
    fields=(
        Field(path=("trial", "soak_s"), label="Trial, at least", unit="s"),
        Field(path=("trial", "min_inferred"), label="Live results it must have seen"),
        Field(path=("trial", "max_error_rate"), label="Error rate, at most", help="A share."),
    ),
)

FAILURE = Section(
    title="When it does not go well",
    help="A device has failed when it rolled back, or did not commit in time.",
    fields=(
        Field(
            path=("on_failure",),
            label="When a gate fails",
            choices={
                "rollback": "Stop, and take it back from every device",
                "rollback-failed": "Stop, and take it back from those that failed",
                "pause": "Pause, and wait for an operator",
            },
        ),
        Field(path=("limits", "max_failures"), label="Devices that may fail"),
        Field(path=("limits", "device_timeout_s"), label="A device is late after", unit="s"),
        Field(path=("retries", "rolled_back"), label="Tries after a rollback"),
    ),
)

LIMITS = Section(
    title="How much at a time",
    help="Bounds that hold in every wave.",
    fields=(
        Field(path=("limits", "in_flight"), label="Devices on their way at once"),
        Field(path=("rate", "per_minute"), label="Devices a minute", help="Empty: no bound."),
        Field(
            path=("limits", "data_budget_mb"),
            label="Network, each device",
            unit="MB",
            help="0: no bound.",
        ),
    ),
)

SECTIONS = (BEGIN, GATES, TRIAL, FAILURE, LIMITS)


def read(tree: Tree, path: Path) -> Any:
    """The value at a path, or the default that holds in its place."""
    found: Any = tree
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return _default(path)
        found = found[name]
    return found


def put(tree: Tree, path: Path, value: Any) -> Tree:
    """A tree with another value at a path; what is empty, or the default, is left out.

    >>> put({"soak_s": 5}, ("limits", "max_failures"), 2.0)
    {'soak_s': 5, 'limits': {'max_failures': 2}}
    >>> put({"soak_s": 5}, ("soak_s",), None)
    {}
    """
    return _put(tree, path, None if value == _default(path) else _plain(value))


def text_of(tree: Tree) -> str:
    """The TOML file; empty where all is as by default."""
    known = Policy.__struct_fields__
    return tomli_w.dumps({name: tree[name] for name in known if name in tree})


def tree_of(text: str) -> Tree:
    """The tree of a TOML file.

    Raises:
        UserError: it is no policy; names the line.
    """
    parse_policy(text)
    return tomllib.loads(text)


def policy_of(tree: Tree) -> Policy:
    """The policy that a tree says.

    Raises:
        UserError: a value is wrong; names it.
    """
    try:
        return parse_policy(text_of(tree))
    except (TypeError, ValueError) as error:
        raise UserError("The policy cannot be used.", why=f"{error}.") from None


def waves_of(tree: Tree) -> list[dict[str, Any]]:
    """The waves, or those by default."""
    found: list[dict[str, Any]] = read(tree, ("waves",))
    return [dict(wave) for wave in found]


def command_of(model: str, version: str, tree: Tree, *, draft: bool, why: str) -> str:
    """The command that does the same as the form, with the file beside it where there is one."""
    words = ["edgeml rollout create", f"{model}:{version}"]
    if set(tree) == {"selector"}:
        words.append(f"--selector {_quoted(tree['selector'])}")
    elif tree:
        words.append(f"--policy {FILE}")
    words += ["--draft"] if draft else []
    words += [f"--why {_quoted(why)}"] if why else []
    return " ".join(words)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _default(path: Path) -> Any:
    found: Any = _DEFAULTS
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _put(tree: Tree, path: Path, value: Any) -> Tree:
    name, rest = path[0], path[1:]
    inner = _put(tree.get(name, {}), rest, value) if rest else value
    others = {key: kept for key, kept in tree.items() if key != name}
    return others if inner in (None, "", {}) else {**others, name: inner}


def _plain(value: Any) -> Any:
    """What a browser sends, as TOML has it: 2.0 is 2; what is none is left out."""
    if isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if item not in ("", None)}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


_DEFAULTS: dict[str, Any] = msgspec.to_builtins(Policy())
_DEFAULTS["waves"] = _plain(_DEFAULTS["waves"])
