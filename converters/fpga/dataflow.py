"""The architecture `dataflow`: the whole net unrolled into logic, an inference every clock.

da4ml, in a toolchain of its own, turns each layer into adder trees with registers between them;
there are no multipliers, so that every factor of the graph is a power of two. What it wrote is run
in Verilator, a sample a clock, and compared with the integer model. It ends at RTL: pins, clock
and place and route are for whoever builds the design around it.
"""

import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from cloud_sync.evidence import Estimate
from converters.fpga.built import Implementation, Say, Settings, resources_gate, rtl_gate
from converters.fpga.integer.graph import Conv, IntegerGraph, encode
from converters.fpga.integer.reference import run
from converters.toolchains.exchange import ask
from converters.toolchains.store import require
from edgeml.errors import ModelError, TargetError, ToolchainError

TOOLCHAIN = "da4ml"
SUFFIX = "zip"
_CUTOFF = 5  # levels of logic between two registers
_LUTS_A_BIT = (
    1.2  # of a weight that is not zero: what da4ml took for nets of 1,000 to 3,000 weights
)
_HOPELESS = 3.0  # times the target's LUTs, by that estimate: da4ml is not even asked
_TIMEOUT_S = 900
_TAIL = 400
_REMARK = (
    "A dataflow ends at RTL: it was not synthesised, so its clock is what was asked for, and its "
    "LUTs are da4ml's estimate. No device runtime loads it."
)
_DATE = (1980, 1, 1, 0, 0, 0)  # of files in the archive, which must not differ from run to run
_BENCH = """`timescale 1 ns / 1 ps
// One sample a clock in, one a clock out: `latency` clocks later.
module bench;
  reg clk = 0;
  reg [{inputs}-1:0] given [0:{samples}-1];
  reg [{inputs}-1:0] entering;
  wire [{outputs}-1:0] leaving;
  integer t, file;
  {module} dut (.clk(clk), .model_inp(entering), .model_out(leaving));
  initial begin
    $readmemh("inputs.hex", given);
    file = $fopen("outputs.hex", "w");
    for (t = 0; t < {samples} + {latency}; t = t + 1) begin
      entering = given[t < {samples} ? t : {samples} - 1];
      #1 clk = 1;
      #1 clk = 0;
      if (t >= {latency}) $fdisplay(file, "%h", leaving);
    end
    $fclose(file);
    $finish;
  end
endmodule
"""


def build(
    graph: IntegerGraph, settings: Settings, folder: Path, codes: np.ndarray, say: Say
) -> Implementation:
    """Unroll a graph and run it in Verilator; see `converters.fpga.built.build`."""
    luts = int(settings["luts"])
    _refuse_hopeless(graph, luts)
    toolchain = require(TOOLCHAIN)
    project = (folder / f"dataflow-{graph.digest[:12]}").absolute()
    project.mkdir()
    (project / "graph.json").write_bytes(encode(graph))
    say("Unrolling the net into logic")
    request = {
        "graph": str(project / "graph.json"),
        "output": str(project / "rtl"),
        "cutoff": _CUTOFF,
    }
    reply = ask(toolchain, request, timeout_s=_TIMEOUT_S)
    if reason := reply.get("refused"):
        raise ModelError(
            "The model cannot be unrolled.",
            why=f"{TOOLCHAIN}: {reason}.",
            fix="Use --option architecture=engine.",
        )
    say("Running the logic in Verilator")
    given = simulate(project / "rtl" / "src", reply, codes, graph, project / "bench")
    clock = float(settings["clock_mhz"])
    cycles = reply["cycles"] + 1
    return Implementation(
        path=_packed(
            project / "rtl" / "src", project / "graph.json", folder / f"{project.name}.zip"
        ),
        gates=(
            rtl_gate(run(graph, codes), given),
            resources_gate({"luts": round(reply["cost"])}, {"luts": luts}),
        ),
        estimates=(
            Estimate(name="cycles", value=cycles, unit="cycles", source="Verilator"),
            Estimate(
                name="latency", value=cycles / clock / 1000, unit="ms", source="cycles at the clock"
            ),
            Estimate(name="luts", value=round(reply["cost"]), unit="", source="da4ml's estimate"),
        ),
        seconds=reply["seconds"],
        tools={"da4ml": reply["version"], "verilator": _version()},
        remarks=(_REMARK,),
    )


def estimated_luts(graph: IntegerGraph) -> int:
    """What unrolled logic takes, roughly: it grows with the bits of all weights at all places."""
    total = 0
    for layer in graph.layers:
        if isinstance(layer, Conv):
            height, width, _ = graph.tensors[layer.output].shape
            ones = np.abs(layer.weights)
            bits = sum(int(((ones >> bit) & 1).sum()) for bit in range(layer.weight_bits))
            total += height * width * bits
    return round(_LUTS_A_BIT * total * 4)


def _refuse_hopeless(graph: IntegerGraph, luts: int) -> None:
    wanted = estimated_luts(graph)
    if wanted > _HOPELESS * luts:
        raise TargetError(
            "The net is too large to be unrolled.",
            why=f"It would take about {wanted:,} LUTs, the target has {luts:,}.",
            fix="Use --option architecture=engine, or a smaller net.",
        )


def simulate(
    sources: Path, reply: dict[str, Any], codes: np.ndarray, graph: IntegerGraph, work: Path
) -> np.ndarray:
    """What the Verilog in a folder answers, int64[samples, height, width, channels].

    Args:
        sources: da4ml's folder of Verilog.
        reply: of its toolchain.
        codes: of the input.
        graph: whose output it is.
        work: a folder that is made.

    Raises:
        ToolchainError: Verilator is missing or fails.
    """
    work.mkdir()
    inputs, outputs = reply["inputs"], reply["outputs"]
    width_in, width_out = (sum(bits for _, bits, _ in ports) for ports in (inputs, outputs))
    lines = [f"{_packed_bits(row, inputs):x}" for row in codes.reshape(len(codes), -1).tolist()]
    (work / "inputs.hex").write_text("\n".join(lines) + "\n", encoding="ascii")
    bench = _BENCH.format(
        inputs=width_in,
        outputs=width_out,
        samples=len(codes),
        latency=reply["cycles"],
        module=reply["module"],
    )
    (work / "bench.v").write_text(bench, encoding="ascii")
    files = [str(path) for path in sorted(sources.rglob("*.v")) if "wrapper" not in path.name]
    warnings = ("-Wno-fatal", "-Wno-WIDTH", "-Wno-lint", "-Wno-style")
    _run_tool(
        [
            *("verilator", "--binary", "-j", "1", *warnings, "--top-module", "bench"),
            # It runs for a moment and compiles for minutes, if the compiler does its best.
            *("-CFLAGS", "-O0", "-MAKEFLAGS", "OPT_FAST=-O0 OPT_SLOW=-O0"),
            *("--Mdir", "out", "-o", "bench", "bench.v", *files),
        ],
        work,
    )
    _run_tool([str(work / "out" / "bench")], work)
    rows = (work / "outputs.hex").read_text(encoding="ascii").split()
    made = np.array([_unpacked_bits(int(row, 16), outputs) for row in rows], np.int64)
    return made.reshape(-1, *graph.tensors[graph.output].shape)


def _packed_bits(row: list[int], ports: list[list[int]]) -> int:
    """Codes side by side, the first in the lowest bits."""
    word = at = 0
    for code, (_, bits, zeros) in zip(row, ports, strict=True):
        word |= ((code >> zeros) & ((1 << bits) - 1)) << at
        at += bits
    return word


def _unpacked_bits(word: int, ports: list[list[int]]) -> list[int]:
    row = []
    for signed, bits, zeros in ports:
        code, word = word & ((1 << bits) - 1), word >> bits
        negative = signed and code >> (bits - 1)
        row.append((code - (1 << bits) if negative else code) << zeros)
    return row


def _packed(sources: Path, graph: Path, path: Path) -> Path:
    """The Verilog and the integer graph in one archive, the same bytes for the same files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in (graph, *sorted(sources.rglob("*.v"))):
            name = "graph.json" if file == graph else str(file.relative_to(sources))
            archive.writestr(zipfile.ZipInfo(name, _DATE), file.read_bytes())
    return path


def _run_tool(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(f"{type(error).__name__}: {error}.") from error
    if done.returncode:
        raise _failed(f"It says: {(done.stderr or done.stdout)[-_TAIL:].strip()}")
    return done.stdout


def _failed(why: str) -> ToolchainError:
    return ToolchainError(
        "The logic cannot be simulated.",
        why=why,
        fix="Install Verilator 5 and a C++ compiler (Debian: apt-get install verilator g++).",
    )


def _version() -> str:
    if shutil.which("verilator") is None:
        raise _failed("There is no program verilator.")
    return _run_tool(["verilator", "--version"], Path()).split()[1]
