"""The demo's simulated FPGA: a device whose model runs on the very gateware, in Verilator.

The converter makes the gateware's program and proves the Verilog on the golden set; the device
runs the same Verilog behind the transport interface that a board's cable has, and names itself
`simulated FPGA`. No part of it is an FPGA's answer, and its latency is that of a simulation.
"""

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from edgeml.demo.setting import Camera
from edgeml.errors import ToolchainError
from hardware.capabilities import SIMULATED_FPGA

TARGET = "fpga-ecp5-25k"
# As many multipliers as there are, for a simulation's sake: 240,000 clocks for a digit.
CONVERT = ("--target", TARGET, "--until", "rtl", "--architecture", "engine", "--option", "lanes=16")
# A simulation takes 50 ms for a digit, and the machine has others to serve.
CAMERA = Camera(
    "fpga-1", "south", light=0.9, noise=5.0, seed=4, fps=10.0,
    environment=(("EDGEML_FPGA", SIMULATED_FPGA), ("EDGEML_FPGA_PART", "LFE5U-25F")),
)  # fmt: skip
_PROGRAMS = ("verilator", "g++")


@dataclass(frozen=True)
class Ran:
    """What the device ran of a release, and whether its answers were the integer model's."""

    release_version: str
    device: str
    kind: str
    target: str
    verification: str
    cycles: int
    golden_samples: int
    max_difference: float
    bit_exact: bool

    def __str__(self) -> str:
        return (
            f"{self.golden_samples} golden samples on the {self.kind}, the largest difference is "
            f"{self.max_difference:g}; {self.cycles:,} cycles for one ({self.verification})"
        )


def left_out() -> str:
    """Why the demo has no simulated FPGA on this machine; empty where it has.

    Raises:
        ToolchainError: it has none, and `CI=true` says that nothing may be missing.
    """
    why = _lacking()
    if why and os.environ.get("CI") == "true":
        raise ToolchainError(
            "The demo's simulated FPGA cannot be left out where CI is true.",
            why=f"{why[0].upper()}{why[1:]}.",
            fix=f"apt-get install {' '.join(_PROGRAMS)}",
        )
    return why


def _lacking() -> str:
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
    from converters.fpga.simulate import version

    here = version()
    is_old = here.partition(".")[0] in {"3", "4"}
    return f"Verilator {here} is installed, and 5 is needed" if is_old else ""


def ran(
    release: str, variants: Iterable[Mapping[str, Any]], evidence: Iterable[Mapping[str, Any]]
) -> Ran | None:
    """What the device ran of a release; None where it proved nothing on gateware.

    Args:
        release: its version.
        variants: as `edgeml convert --json` lists them.
        evidence: of the release's rollout, as the fleet's API has it.
    """
    made = next((v for v in variants if v["target"] == TARGET), None)
    said = next(
        (
            record["evidence"]
            for record in evidence
            if record["device"] == CAMERA.device and record["stage"] == "test"
        ),
        None,
    )
    if made is None or said is None or said["target"] != TARGET or not said["golden"]:
        return None
    golden = said["golden"]
    [kind] = said["placement"]
    return Ran(
        release_version=release,
        device=CAMERA.device,
        kind=kind,
        target=said["target"],
        verification=said["verification"],
        cycles=_cycles(made),
        golden_samples=golden["samples"],
        max_difference=golden["max_difference"],
        bit_exact=golden["samples"] > 0 and golden["max_difference"] == golden["tolerance"] == 0,
    )


def summary(runs: Iterable[Ran], left_out: str) -> dict[str, object]:
    """What the simulated FPGA ran, or why there was none, for `summary.json`."""
    return {"left_out": left_out} if left_out else {"ran": [asdict(one) for one in runs]}


def _cycles(variant: Mapping[str, Any]) -> int:
    """Clocks of one inference, as Verilator counted them for the converter."""
    found = (e["value"] for e in variant["compiled"]["estimates"] if e["name"] == "cycles")
    return round(next(found, 0))
