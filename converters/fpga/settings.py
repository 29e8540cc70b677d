"""What is built for an FPGA: the profile's settings, and the request's or the recipe's."""

from collections.abc import Mapping

from converters.fpga.flow import UNTIL
from converters.fpga.simulate import version
from converters.fpga.synthesis import TOOLCHAIN as SYNTHESIS
from converters.toolchains.store import require
from edgeml.errors import UserError
from hardware.profiles import TargetProfile

AUTO, ENGINE, DATAFLOW, HLS4ML = "auto", "engine", "dataflow", "hls4ml"
UNROLLER = "da4ml"
_OPTIONS = {"architecture", "until", "clock_mhz", "lanes", "seeds", "host", "bits", "board"}
_ALLOWED = {
    "architecture": (AUTO, ENGINE, DATAFLOW, HLS4ML),
    "until": UNTIL,
    "host": ("amd64", "arm64"),
    "bits": ("8", "search"),
}

Settings = dict[str, str | int | float | bool]


def settings_of(
    target: TargetProfile, options: Mapping[str, str], decided: Mapping[str, object] | None = None
) -> Settings:
    """The profile's settings, changed by the request's options; on a replay those of the recipe.

    Raises:
        UserError: an option is unknown, or has a value that it cannot have.
    """
    if unknown := sorted(set(options) - _OPTIONS):
        raise UserError(
            f"FPGAs have no option {unknown[0]}.", why=f"Known are {', '.join(sorted(_OPTIONS))}."
        )
    defaults: Settings = {
        "architecture": AUTO,
        "until": "bitstream",
        "seeds": 1,
        "host": target.architecture,
        "bits": "8",
        "board": "",
    }
    settings = defaults | target.settings
    settings |= {k: v for k, v in (decided or {}).items() if k in settings}  # type: ignore[misc]
    for name, text in options.items():
        if name not in settings:
            raise UserError(f"{target.name} has no option {name}.")
        settings[name] = _parsed(name, text, settings[name])
    for name, allowed in _ALLOWED.items():
        if settings[name] not in allowed:
            raise UserError(
                f"The option {name}={settings[name]} cannot be used.",
                why=f"It is one of {', '.join(allowed)}.",
            )
    own = (HLS4ML,) if settings["family"] == "amd" else _ALLOWED["architecture"][:-1]
    if settings["architecture"] not in own:
        raise UserError(
            f"{target.name} has no architecture {settings['architecture']}.",
            why=f"It has {' and '.join(own)}.",
        )
    return settings


def require_tools(settings: Settings) -> None:
    """Check that all tools that these settings need are here, before any work is spent.

    Raises:
        ToolchainError: one is not; the error has the command to run.
    """
    architecture = settings["architecture"]
    if architecture == HLS4ML:
        return
    version()
    if architecture == DATAFLOW:
        require(UNROLLER)
    if settings["until"] != "rtl":
        require(SYNTHESIS)


def _parsed(name: str, text: str, default: str | float | bool) -> str | int | float:
    if isinstance(default, str):
        return text
    try:
        value = type(default)(text)
    except ValueError:
        value = 0
    if value <= 0:
        raise UserError(f"The option {name}={text} is no number above 0.")
    return value
