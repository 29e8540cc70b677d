"""The architecture `hls4ml`: a Vitis HLS project for AMD's FPGAs, simulated in C, not synthesised.

hls4ml, in a toolchain of its own, writes the integer model's layers as C++ for Vitis HLS. The C++
is compiled by g++ with the fixed-point types that hls4ml brings and runs the golden samples, which
must give the integer model's bits: the gate `csim`. Synthesis needs AMD's licensed tools, which
nothing here runs: the project is what a user takes there (`vitis_hls -f build_prj.tcl`).
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cloud_sync.evidence import Verification
from converters.backends.interface import Proof
from converters.backends.support import Constraint
from converters.fpga.backend import Fpga
from converters.fpga.built import Implementation, Say, Settings, equality_gate
from converters.fpga.integer.functions import FUNCTIONS
from converters.fpga.integer.graph import IntegerGraph, encode
from converters.fpga.integer.reference import run
from converters.fpga.simulate import require_programs
from converters.toolchains.exchange import ask
from converters.toolchains.store import require
from edgeml.errors import ModelError
from hardware.profiles import TargetProfile

TOOLCHAIN = "hls4ml"
RUNTIME = "fpga-hls"  # what no device has: a project for a design of one's own
_TIMEOUT_S = 3600
_MACHINES = {".so", ".o", ".yml"}  # what is of this machine, or names its folders
_DATE = (1980, 1, 1, 0, 0, 0)  # of files in the archive, which must not differ from run to run
_REMARK = (
    "The project was not synthesised: nobody ran Vitis here, so that clock, latency and resources "
    "are not known. Its C++ was compiled by g++ and executed. No device runtime loads it."
)
_OPTIONS = {
    "clock_mhz": "the clock that the project asks of Vitis",
    "host": "amd64 or arm64: the Linux machine that the board hangs on",
}


class Vitis(Fpga):
    """The backend `fpga-vitis`."""

    name = "fpga-vitis"
    toolchains: tuple[str, ...] = (TOOLCHAIN,)
    optional_toolchains: tuple[str, ...] = ()
    options: Mapping[str, str] = _OPTIONS
    proof = Proof(
        executes="the project's C++, compiled by g++, on the golden samples",
        verification=Verification.PRE_COMPILE_EXECUTED,
    )

    def require(self) -> None:
        """Check that the project's C++ can be compiled here.

        Raises:
            ToolchainError: there is no C++ compiler.
        """
        require_programs("g++")

    def constraints(self, target: TargetProfile) -> Mapping[str, Sequence[Constraint]]:
        """What gateware computes, without what is looked up and what names a class."""
        known = super().constraints(target)
        return {name: known[name] for name in known if name not in {*FUNCTIONS, "ArgMax"}}


def build(
    graph: IntegerGraph, settings: Settings, folder: Path, codes: np.ndarray, say: Say
) -> Implementation:
    """Write a graph's project and run its C++; see `converters.fpga.built.build`."""
    toolchain = require(TOOLCHAIN)
    project = (folder / f"hls-{graph.digest[:12]}").absolute()
    project.mkdir()
    paths = {name: project / name for name in ("graph.json", "codes.npy", "answers.npy")}
    paths["graph.json"].write_bytes(encode(graph))
    np.save(paths["codes.npy"], codes)
    say("Writing the HLS project, compiling and running its C++")
    request = {path.stem: str(path) for path in paths.values()} | {
        "output": str(project / "hls"),
        "part": str(settings["part"]),
        "clock_ns": 1000 / float(settings["clock_mhz"]),
    }
    reply = ask(toolchain, request, timeout_s=_TIMEOUT_S)
    if reason := reply.get("refused"):
        raise ModelError(
            "The model cannot become an HLS project.",
            why=f"{TOOLCHAIN}: {reason}.",
            fix="Export the model without it, or choose an FPGA of the open tools.",
        )
    wanted, given = run(graph, codes), np.load(paths["answers.npy"], allow_pickle=False)
    wrong = int((wanted != given).reshape(len(wanted), -1).any(axis=1).sum())
    said = "The C++, compiled by g++, gives the integer model's bits"
    if wrong:
        said += f" but for up to {np.abs(wanted - given).max()} codes of difference"
    return Implementation(
        path=_packed(project / "hls", paths["graph.json"], folder / f"{project.name}.zip"),
        gates=(equality_gate("csim", wrong, len(wanted), said),),
        estimates=(),
        seconds=reply["seconds"],
        tools={TOOLCHAIN: reply["version"]},
        remarks=(_REMARK,),
        runtime=RUNTIME,
        verification=Verification.PRE_COMPILE_EXECUTED,
        executed_on="integer reference, equal to the project's C++ on this machine",
    )


def _packed(project: Path, graph: Path, path: Path) -> Path:
    """The project and the integer graph in one archive, the same bytes for the same files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(graph.name, _DATE), graph.read_bytes())
        for file in sorted(project.rglob("*")):
            if file.is_file() and file.suffix not in _MACHINES:
                name = zipfile.ZipInfo(str(file.relative_to(project)), _DATE)
                name.external_attr = (file.stat().st_mode & 0o777) << 16
                archive.writestr(name, file.read_bytes(), zipfile.ZIP_DEFLATED)
    return path
