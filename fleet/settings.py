"""What an operator may write into a configuration: checked before anyone is given it. Pure.

A layer (`fleet.layers`) may say a part only: the rate of a source whose address each device has
for itself, or `absent = true` for one that it does not have.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cloud_sync.address import require_private
from cloud_sync.messages import CapturePolicy, Configuration, DataBudget, SourceConfig
from cloud_sync.windows import UpdateWindow, is_time_of_day, is_timezone
from edgeml.errors import UserError

MAX_CONFIGURATION_BYTES = 128 << 10  # the rest of a desired state is for its models
MAX_SOURCES = 64
MAX_DEPTH = 32  # what is nested deeper, not every reader of JSON takes
MIN_TELEMETRY_S = 0.1
ABSENT = "absent"
_WHAT = "The configuration cannot be used."
_ANY_SOURCE = {"uri": "file:///", "model": "any"}


def parse_configuration(settings: Mapping[str, Any]) -> Configuration:
    """Check a whole configuration.

    Raises:
        UserError: a key is unknown or a value is wrong.
    """
    _check_depth(settings)
    _refuse_unknown(settings, Configuration, "", leave_out=("config_version",))
    if isinstance(budget := settings.get("data_budget"), dict):
        _refuse_unknown(budget, DataBudget, " of data_budget")
    for number, source in enumerate(_tables(settings.get("sources", ())), 1):
        _refuse_unknown(source, SourceConfig, f" of source {number}")
    _check_windows_as_written(_tables(settings.get("update_windows", ()), "update_windows"))
    _check_captures_as_written(settings.get("capture", {}))
    try:
        wanted = msgspec.convert(dict(settings), Configuration)
    except (msgspec.ValidationError, OverflowError) as error:
        raise UserError(_WHAT, why=f"{error}.") from None
    _check_values(wanted)
    _check_lasting(wanted)
    size = len(msgspec.json.encode(wanted))
    if size > MAX_CONFIGURATION_BYTES:
        raise UserError(
            _WHAT,
            why=f"It has {size} bytes; at most {MAX_CONFIGURATION_BYTES} are allowed.",
            fix="Put large data into the release.",
        )
    return wanted


def parse_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Check what a layer says, which may be a part of a configuration; returns it.

    Raises:
        UserError: a key is unknown or a value is wrong.
    """
    whole = dict(settings)
    if "sources" in whole:
        whole["sources"] = [_completed(source) for source in _tables(whole["sources"])]
    parse_configuration(whole)
    return dict(settings)


def _completed(source: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a source with what others will say of it."""
    if not isinstance(source.get(ABSENT, False), bool):
        raise UserError(_WHAT, why="absent of a source must be true or false.")
    return _ANY_SOURCE | {key: value for key, value in source.items() if key != ABSENT}


def _check_values(wanted: Configuration) -> None:
    if len(wanted.sources) > MAX_SOURCES:
        raise UserError(_WHAT, why=f"At most {MAX_SOURCES} sources are allowed.")
    names = [source.name for source in wanted.sources]
    if len(set(names)) != len(names):
        raise UserError(_WHAT, why="Two sources have the same name.")
    if not math.isfinite(wanted.telemetry_every_s) or wanted.telemetry_every_s < MIN_TELEMETRY_S:
        raise UserError(_WHAT, why=f"telemetry_every_s must be at least {MIN_TELEMETRY_S}.")
    for source in wanted.sources:
        if not urlsplit(source.uri).scheme:
            said = source.uri.rpartition("@")[2][:80]  # without a password
            raise UserError(
                _WHAT,
                why=f"The source {source.name} has the uri {said!r}, without a scheme.",
                fix="Write something like file:///videos/belt.mp4.",
            )
        if source.fps is not None and not (math.isfinite(source.fps) and source.fps > 0):
            raise UserError(_WHAT, why=f"The source {source.name} has an fps that is not positive.")
    _check_windows(wanted.update_windows)
    for mirror in wanted.mirrors:
        scheme, _, host = mirror.partition("://")
        if scheme not in {"http", "https"} or not host:
            raise UserError(
                _WHAT,
                why=f"The mirror {mirror.rpartition('@')[2][:80]!r} is no address.",
                fix="Write https://cache.site, or https://registry.example/team-a.",
            )
        require_private(scheme, urlsplit(mirror).hostname or "", of="mirror")


def _check_windows_as_written(windows: Sequence[Mapping[str, Any]]) -> None:
    for number, window in enumerate(windows, 1):
        _refuse_unknown(window, UpdateWindow, f" of update window {number}")
        for key in ("begins", "ends"):
            if not is_time_of_day(window.get(key)):
                raise UserError(
                    _WHAT,
                    why=f"The {key} of update window {number} is no time of the day.",
                    fix=f'Write {key} = "22:00".',
                )


def _check_captures_as_written(captures: Any) -> None:
    for model, policy in captures.items() if isinstance(captures, Mapping) else ():
        if isinstance(policy, Mapping):
            _refuse_unknown(policy, CapturePolicy, f" of capture.{model}")
            if not policy:  # a layer is made of its settings, and it has none
                raise UserError(_WHAT, why=f"capture.{model} is empty.", fix="Say unsure = true.")


def _check_windows(windows: Sequence[UpdateWindow]) -> None:
    for window in windows:
        if not is_timezone(window.timezone):
            raise UserError(
                _WHAT,
                why=f"The time zone {window.timezone!r} of an update window is not known.",
                fix='Write timezone = "device", or a name like "Europe/Berlin".',
            )


def _check_depth(settings: Mapping[str, Any]) -> None:
    level: list[Any] = [settings]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, Mapping | list | tuple)
            for inner in (value.values() if isinstance(value, Mapping) else value)
        ]
    if level:
        raise UserError(_WHAT, why=f"It is nested deeper than {MAX_DEPTH} levels.")


def _check_lasting(wanted: Configuration) -> None:
    """Refuse what would not come out of JSON as it went in."""
    try:
        again = msgspec.json.decode(msgspec.json.encode(wanted), type=Configuration)
    except (msgspec.ValidationError, OverflowError, ValueError, RecursionError) as error:
        raise UserError(_WHAT, why=f"{error}.") from None
    if again != wanted:
        raise UserError(_WHAT, why="A number in it is not finite, or JSON has no such value.")


def _refuse_unknown(
    found: Mapping[str, Any],
    kind: type[msgspec.Struct],
    where: str,
    leave_out: Sequence[str] = (),
) -> None:
    known = [name for name in kind.__struct_fields__ if name not in leave_out]
    unknown = sorted(set(found) - set(known))
    if unknown:
        raise UserError(
            _WHAT,
            why=f"The key {', '.join(unknown)}{where} is not known.",
            fix=f"It knows {', '.join(known)}.",
        )


def _tables(value: Any, key: str = "sources") -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, dict) for item in value):
        raise UserError(_WHAT, why=f"{key} must be a list of tables.", fix=f"Write [[{key}]].")
    return list(value)
