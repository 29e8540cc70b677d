"""What is built for an FPGA: the profile's settings, and the request's or the recipe's."""

import math
from collections.abc import Mapping

from converters.fpga.candidates import DATAFLOW, ENGINE, LANES
from converters.fpga.commands import toolchain_of
from converters.fpga.flow import AUTO, FLASH, PLACES, UNTIL, board_of
from converters.toolchains.store import require
from edgeml.errors import ToolchainError, UserError
from hardware.profiles import TargetProfile

HLS4ML = "hls4ml"
UNROLLER = "da4ml"
OPTIONS: Mapping[str, str] = {
    "architecture": "auto, engine or dataflow; auto (the default) takes logic where it fits",
    "until": "bitstream (the default), netlist or rtl: the last step that is done",
    "clock_mhz": "the clock that must be reached, or auto: as fast as placements reach",
    "lanes": "multipliers of the engine: auto (the default), 4, 8, 16 or 32",
    "weights": "where the engine's are: auto (the default), chip or flash",
    "share": "how much of the part may be taken: 1 (the default) is all",
    "latency_ms": "the smallest that answers in this time is built; without it the quickest",
    "seeds": "how many placements are tried; 1 by default",
    "bits": "8 (the default), or search: a width of 2 to 8 for each layer's weights",
    "board": "a board's name, or a board file of one's own; the first with that part otherwise",
    "host": "amd64 or arm64: the Linux machine that the board hangs on",
}
_ALLOWED: dict[str, tuple[str | int, ...]] = {
    "architecture": (AUTO, ENGINE, DATAFLOW, HLS4ML),
    "until": UNTIL,
    "host": ("amd64", "arm64"),
    "bits": ("8", "search"),
    "lanes": (AUTO, *LANES),
    "weights": (AUTO, *PLACES),
}

Settings = dict[str, str | int | float | bool]


def settings_of(
    target: TargetProfile, options: Mapping[str, str], decided: Mapping[str, object] | None = None
) -> Settings:
    """The profile's settings, changed by the request's options; on a replay those of the recipe.

    Raises:
        TargetError: the board that is named does not exist, or has another part.
        UserError: an option has a value that it cannot have.
    """
    defaults: Settings = {
        "architecture": AUTO,
        "until": "bitstream",
        "seeds": 1,
        "host": target.architecture,
        "bits": "8",
        "board": "",
        "lanes": AUTO,
        "weights": AUTO,
        "share": 1.0,
        "latency_ms": 0.0,
        "fastest": False,
    }
    settings = defaults | target.settings
    settings |= {k: v for k, v in (decided or {}).items() if k in settings}  # type: ignore[misc]
    for name, text in options.items():
        if (name, text) == ("clock_mhz", AUTO) and settings["family"] != "amd":
            settings["fastest"] = True
        else:
            settings[name] = _parsed(name, text, settings[name])
    for name, allowed in _ALLOWED.items():
        if settings.get(name, allowed[0]) not in allowed:
            raise UserError(
                f"The option {name}={settings[name]} cannot be used.",
                why=f"It is one of {', '.join(map(str, allowed))}.",
            )
    if float(settings["share"]) > 1:
        raise UserError(
            f"The option share={settings['share']:g} is more than all of the FPGA.",
            why="It is the part of its LUTs, DSPs and block RAM that may be taken, at most 1.",
            fix="Give 0.5 for half of them.",
        )
    own = (HLS4ML,) if settings["family"] == "amd" else (AUTO, ENGINE, DATAFLOW)
    if settings["architecture"] not in own:
        raise UserError(
            f"{target.name} has no architecture {settings['architecture']}.",
            why=f"It has {' and '.join(own)}.",
        )
    if settings["family"] == "amd":
        return settings
    board = board_of(settings)
    if settings["weights"] == FLASH and not board.flash:
        raise UserError(
            f"The engine of {target.name} cannot have weights in a flash.",
            why=f"The board {board.name} has no flash that it can read (docs/fpga-engine.md).",
        )
    return settings


def require_tools(settings: Settings) -> None:
    """Check that all toolchains that these settings need are here, before any work is spent.

    Raises:
        ToolchainError: one is not; the error has the command to run.
    """
    architecture = settings["architecture"]
    if architecture == DATAFLOW:
        require(UNROLLER)
    if architecture != HLS4ML and settings["until"] != "rtl":
        try:
            require(toolchain_of(str(settings["family"])))
        except ToolchainError as error:
            fix = f"{error.fix} (it is not needed with --until rtl)"
            raise ToolchainError(error.what, why=error.why, fix=fix) from None


def _parsed(name: str, text: str, default: str | float | bool) -> str | int | float:
    if isinstance(default, str):
        return int(text) if name == "lanes" and text.isdecimal() else text
    try:
        value = type(default)(text)
    except ValueError:
        value = 0
    if not 0 < value < math.inf:
        number = "whole number" if isinstance(default, int) else "number"
        raise UserError(
            f"The option {name}={text} is no {number} above 0.",
            fix="Give one, or leave the option out (docs/fpga.md says what is done then).",
        )
    return value
