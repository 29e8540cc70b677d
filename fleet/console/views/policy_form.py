"""The form that a policy is made with, and the TOML file and command that say the same.

The truth is the tree of a TOML file, of what differs from the defaults: the form reads and writes
single values of it, and whoever writes TOML instead replaces it whole. Pure.
"""

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import tomli_w

from edgeml.errors import UserError
from fleet.console.views.policy_fields import Path, Rows, Section
from fleet.rollouts import Policy, parse_policy
from fleet.rollouts.failures import Threshold
from fleet.rollouts.policy import Metric
from fleet.rollouts.timing import Rate, Window
from fleet.rollouts.together import Together

Tree = dict[str, Any]
FILE = "policy.toml"


def read(tree: Tree, path: Path) -> Any:
    """The value at a path, or the default that holds in its place."""
    found: Any = tree
    for name in path:
        if not isinstance(found, Mapping) or name not in found:
            return _default(path)
        found = found[name]
    return found


def says(tree: Tree, section: Section) -> bool:
    """Whether the tree has anything of a section."""
    paths = [field.path for field in section.fields] + [rows.path for rows in section.rows]
    return any(read(tree, path) != _default(path) for path in paths)


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
    known = [name for name in Policy.__struct_fields__ if name in tree]
    lists = [name for name in known if isinstance(tree[name], list)]
    parts = [tomli_w.dumps({name: tree[name] for name in known if name not in lists})]
    parts += [f"[[{name}]]\n{tomli_w.dumps(row)}" for name in lists for row in tree[name]]
    return "\n".join(filter(None, parts))


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


def rows_of(tree: Tree, rows: Rows) -> list[dict[str, Any]]:
    """The tables of a list, each with what is as by default."""
    found = read(tree, rows.path) or ()
    return [{**_ROWS[rows.path], **row} for row in found]


def put_rows(tree: Tree, rows: Rows, values: Sequence[Mapping[str, Any]]) -> Tree:
    """A tree with other tables in a list; what is as by default is left out of them.

    >>> from fleet.console.views import policy_fields as fields
    >>> put_rows({}, fields.WINDOWS, [{"begins": "22:00", "ends": "05:00", "timezone": "device"}])
    {'windows': [{'begins': '22:00', 'ends': '05:00'}]}
    """
    default = _ROWS[rows.path]
    kept = [
        {name: value for name, value in row.items() if value != default.get(name, _NEVER)}
        for row in values
    ]
    return put(tree, rows.path, kept)


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
    return others if inner in (None, "", {}, []) else {**others, name: inner}


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


def _defaults_of(example: msgspec.Struct) -> dict[str, Any]:
    """The values of a table that may be left out of it."""
    required = {field.name for field in msgspec.structs.fields(example) if field.required}
    found: dict[str, Any] = _plain(msgspec.to_builtins(example))
    return {name: value for name, value in found.items() if name not in required}


_NEVER = object()
_DEFAULTS: dict[str, Any] = msgspec.to_builtins(Policy()) | {
    "waves": _plain(msgspec.to_builtins(Policy().waves)),
    "rate": _defaults_of(Rate(per_minute=1)),
    "together": _defaults_of(Together(label="line")),
}
_ROWS: dict[Path, dict[str, Any]] = {
    ("windows",): _defaults_of(Window(begins="22:00", ends="05:00")),
    ("thresholds",): _defaults_of(Threshold(percent=1)),
    ("gates", "metrics"): _defaults_of(Metric(name="name")),
}
