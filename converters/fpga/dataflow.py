"""The architecture `dataflow`: the whole net unrolled into logic, an inference every clock.

da4ml, in a toolchain of its own, turns each layer into adder trees with registers between them;
there are no multipliers, so that every factor of the graph is a power of two. What it wrote is run
in Verilator, a sample a clock, and compared with the integer model. On a board it stands behind the
engine's bus and registers, which give it one sample at a time.
"""

import hashlib
import subprocess
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from cloud_sync.evidence import Verdict
from converters.fpga import design, flow, report
from converters.fpga.built import Implementation, Say, Settings, rtl_gate
from converters.fpga.engine import SUFFIX, latency
from converters.fpga.estimate import CUTOFF, logic_luts
from converters.fpga.integer.graph import IntegerGraph, encode
from converters.fpga.integer.reference import run
from converters.fpga.simulate import version
from converters.fpga.synthesis import Keeper
from converters.toolchains.exchange import ask
from converters.toolchains.store import require
from edgeml.errors import ModelError, TargetError, ToolchainError
from hardware.fpga.artifact import DataflowArtifact
from hardware.fpga.dataflow import Bits, Dataflow

TOOLCHAIN = "da4ml"
HOPELESS = 3.0  # times the target's LUTs, by that estimate: da4ml is not even asked
_TIMEOUT_S = 900
_TAIL = 400
_REMARK = "The logic takes a sample in every clock; a board's registers give it one at a time."
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
    graph: IntegerGraph,
    settings: Settings,
    folder: Path,
    codes: np.ndarray,
    say: Say,
    *,
    keeper: Keeper,
) -> Implementation:
    """Unroll a graph and run it in Verilator; see `converters.fpga.built.build`."""
    begun = time.monotonic()
    luts = int(settings["luts"])
    _require_fit(logic_luts(graph), HOPELESS * luts, luts)
    folder = (folder / f"dataflow-{graph.digest[:12]}").absolute()
    folder.mkdir()
    (folder / "graph.json").write_bytes(encode(graph))
    reply = _unrolled(folder, say, keeper)
    _require_fit(round(reply["cost"]), luts, luts)
    say("Running the logic in Verilator")
    sources = folder / "rtl" / "src"
    given = simulate(sources, reply, codes, graph, folder / "bench")
    wanted = run(graph, codes)
    gate = rtl_gate(wanted, given)
    dataflow = _dataflow(graph, reply, sources)
    cycles = reply["cycles"] + 1
    until = settings["until"] if gate.result is Verdict.PASS else "rtl"
    made = flow.realise(
        design.unrolled(dataflow),
        {**settings, "until": until},
        folder / "board",
        (codes, wanted),
        cycles=cycles,
        keeper=keeper,
        say=say,
    )
    needed = flow.counted({"luts": round(reply["cost"])}, "da4ml's estimate")
    path = folder / f"{graph.digest[:12]}.{SUFFIX}"
    DataflowArtifact(
        dataflow=dataflow,
        host=flow.host_side(graph),
        **made.fields,  # type: ignore[arg-type]
    ).save(path)
    header = folder / "edgeml_dataflow.h"
    header.write_text(
        report.constants(dataflow.parameters_of_verilog, dataflow.build, made), "utf-8"
    )
    schedule = folder / "schedule.svg"
    schedule.write_text(report.svg_of_logic(reply["layers"], cycles), "utf-8")
    verilog = _packed(sources, folder / "graph.json", folder / "dataflow.zip")
    return Implementation(
        path=path,
        gates=(gate, *made.gates),
        estimates=(*latency(cycles, made.clock_mhz), *made.estimates, *needed),
        seconds=time.monotonic() - begun,
        documents={path.name: path for path in (verilog, header, schedule)} | made.files,
        tools={"da4ml": reply["version"], "verilator": version(), **made.tools},
        remarks=(_REMARK, *made.remarks),
    )


def _unrolled(folder: Path, say: Say, keeper: Keeper) -> dict[str, Any]:
    """The reply of da4ml, its Verilog in `rtl/src`; of the same graph, what was kept of both."""
    said = "Unrolling the net into logic"
    tool, graph, sources = require(TOOLCHAIN), folder / "graph.json", folder / "rtl" / "src"
    parts = [tool.identity, hashlib.sha256(graph.read_bytes()).hexdigest(), CUTOFF]
    if (kept := keeper.get("unrolled", parts)) is not None:
        say(f"{said}: finished before")
        made = msgspec.msgpack.decode(zlib.decompress(kept), type=_Unrolled)
        for name, text in made.files.items():
            path = sources / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return made.reply
    say(said)
    request = {"graph": str(graph), "output": str(folder / "rtl"), "cutoff": CUTOFF}
    reply = ask(tool, request, timeout_s=_TIMEOUT_S)
    if reason := reply.get("refused"):
        raise ModelError(
            "The model cannot be unrolled.",
            why=f"{TOOLCHAIN}: {reason}.",
            fix="Use --architecture engine.",
        )
    files = {str(path.relative_to(sources)): path for path in sorted(sources.rglob("*.v"))}
    made = _Unrolled(reply, {name: path.read_text("utf-8") for name, path in files.items()})
    keeper.put("unrolled", parts, zlib.compress(msgspec.msgpack.encode(made), 1))
    return reply


class _Unrolled(msgspec.Struct, frozen=True):
    """What da4ml answered, and its Verilog by name."""

    reply: dict[str, Any]
    files: dict[str, str]


def _dataflow(graph: IntegerGraph, reply: dict[str, Any], sources: Path) -> Dataflow:
    """The logic as a device takes it."""
    files = {str(path.relative_to(sources)): path for path in sorted(sources.rglob("*.v"))}
    return Dataflow(
        sources={n: p.read_text("utf-8") for n, p in files.items() if "wrapper" not in n},
        module=reply["module"],
        inputs=tuple(_bits(port) for port in reply["inputs"]),
        outputs=tuple(_bits(port) for port in reply["outputs"]),
        input_shape=graph.tensors[graph.input].shape,
        output_shape=graph.tensors[graph.output].shape,
        latency=reply["cycles"],
    )


def _bits(port: list[int]) -> Bits:
    signed, bits, zeros = port
    return Bits(signed=bool(signed), bits=bits, zeros=zeros)


def _require_fit(wanted: int, most: float, luts: int) -> None:
    if wanted > most:
        raise TargetError(
            "The net is too large to be unrolled.",
            why=f"It would take about {wanted:,} LUTs, the target has {luts:,}.",
            fix="Use --architecture engine, a larger FPGA or a smaller net.",
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
