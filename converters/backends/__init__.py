"""Backends: who makes files for targets that a compiler serves, each in a folder of its own.

A folder holds the profiles of its targets (`targets.toml`), the lock of each toolchain that it
needs (`toolchain*.toml`), the script that runs in it, and the backend, which is named in the table
below. `converters.backends.interface` says what it must do, docs/targets.md how to add one.
Third parties bring backends by the entry point group `edgeml.backends`.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.resources import files
from typing import TYPE_CHECKING, cast

from edgeml.errors import TargetError
from hardware.profiles import TargetProfile, parse

if TYPE_CHECKING:
    from converters.backends.interface import Backend

_OURS = {
    "esp-dl": "converters.backends.esp_dl.backend:EspDl",
    "ethos-u": "converters.backends.ethos_u.backend:EthosU",
    "fpga": "converters.fpga.backend:Fpga",
    "fpga-gowin": "converters.fpga.gowin:Gowin",
    "fpga-vitis": "converters.fpga.vitis:Vitis",
    "intel": "converters.backends.intel.backend:Intel",
    "qualcomm": "converters.backends.qualcomm.backend:Qualcomm",
    "rockchip": "converters.backends.rockchip.backend:Rockchip",
}


def target_profiles() -> tuple[TargetProfile, ...]:
    """The targets of our backends; the entry point `edgeml.targets` names this function."""
    return tuple(
        profile
        for folder in sorted(files("converters.backends").iterdir(), key=lambda f: f.name)
        if folder.is_dir() and (file := folder / "targets.toml").is_file()
        for profile in parse(file.read_text("utf-8"))
    )


@cache
def backend(name: str) -> "Backend":
    """The backend of that name.

    Raises:
        TargetError: there is none, or a plug-in cannot be loaded.
    """
    if name in _OURS:
        module, _, attribute = _OURS[name].partition(":")
        return cast("Backend", getattr(import_module(module), attribute)())
    entries = [entry for entry in entry_points(group="edgeml.backends") if entry.name == name]
    if not entries:
        raise TargetError(
            f"There is no backend {name}.",
            why="A target's profile names it, and no installed package brings it.",
            fix="Install the package that brings it.",
        )
    try:
        return cast("Backend", entries[0].load()())
    except Exception as error:
        raise TargetError(
            f"The backend plug-in {name} cannot be loaded.",
            why=f"{type(error).__name__}: {error}.",
            fix="Repair or uninstall the package that brings it.",
        ) from error


def takes_quantized(name: str) -> bool:
    """Whether a backend takes models that came quantized (QDQ, QONNX), keeping their scales."""
    return bool(getattr(backend(name), "takes_quantized", False))
