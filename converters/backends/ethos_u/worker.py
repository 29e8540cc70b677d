"""Vela: an int8 .tflite file to one that holds a command stream for Arm's Ethos-U."""

import csv
import os
import subprocess
import sys
import tempfile
from math import prod
from pathlib import Path
from typing import Any

_CONFIG = "Arm/vela.ini"
_LOG = 2  # standard error, a file: what Vela prints goes there
_TAIL = 4
_LEAST_INPUTS = 2
_CUSTOM = "ethos-u"


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compile `model` into `output`.

    The request: also `accelerator`, `system-config` and `memory-mode`, in Vela's words.

    The reply: `summary` (Vela's own estimates, by its names), `operators` of the file that was
    given, each with its `name`, `operator`, `macs`, and whether it is `offloaded`; or
    `refused`, why Vela could not.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = os.fstat(_LOG).st_size
        done = subprocess.run(
            [
                *(sys.executable, "-I", "-u", "-m", "ethosu.vela", request["model"]),
                *("--output-dir", folder, "--config", _CONFIG, "--show-cpu-operations"),
                *("--accelerator-config", request["accelerator"]),
                *("--system-config", request["system-config"]),
                *("--memory-mode", request["memory-mode"]),
            ],
            stdout=_LOG,
            check=False,
        )
        compiled = next(Path(folder).glob("*_vela.tflite"), None)
        if done.returncode or compiled is None:
            log = os.pread(_LOG, os.fstat(_LOG).st_size - written, written).decode(errors="replace")
            return {"refused": _sentence(log) or f"exit status {done.returncode}"}
        summary = next(Path(folder).glob("*_summary_*.csv"))
        with summary.open(encoding="utf-8", newline="") as file:
            estimates = next(csv.DictReader(file))
        data = compiled.read_bytes()
    Path(request["output"]).write_bytes(data)
    given, left = _operators(Path(request["model"]).read_bytes()), _operators(data)
    names = {operator["name"] for operator in left if operator["operator"] != _CUSTOM}
    return {
        "summary": estimates,
        "operators": [{**o, "offloaded": o["name"] not in names} for o in given],
    }


def _sentence(log: str) -> str:
    """What Vela says went wrong: all from its last `Error:` on, without Python's words about it."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [place for place, line in enumerate(lines) if "Error:" in line]
    said = lines[errors[-1] : errors[-1] + _TAIL] if errors else lines[-_TAIL:]
    return " ".join(said).rpartition("Error: ")[2]


def _operators(data: bytes) -> list[dict[str, Any]]:
    """Of each operator its first output's name, what it is, and what it multiplies."""
    from ethosu.vela.tflite import Model

    model = Model.Model.GetRootAsModel(data, 0)
    found = []
    for index in range(model.SubgraphsLength()):
        graph = model.Subgraphs(index)
        for place in range(graph.OperatorsLength()):
            operator = graph.Operators(place)
            name = _name(model.OperatorCodes(operator.OpcodeIndex()))
            tensors = [graph.Tensors(i) for i in operator.InputsAsNumpy() if i >= 0]
            output = graph.Tensors(operator.Outputs(0))
            shapes = [
                list(map(int, tensor.ShapeAsNumpy())) for tensor in tensors if not _bare(tensor)
            ]
            macs = _macs(
                name, shapes, [] if _bare(output) else list(map(int, output.ShapeAsNumpy()))
            )
            found.append(
                {
                    "name": output.Name().decode("utf-8", "replace"),
                    "operator": name,
                    "macs": macs,
                    "shapes": shapes,
                    "types": [tensor.Type() for tensor in (*tensors, output)],
                }
            )
    return found


def _bare(tensor: Any) -> bool:
    return bool(tensor.ShapeIsNone()) or tensor.ShapeLength() == 0


def _name(code: Any) -> str:
    from ethosu.vela.tflite import BuiltinOperator

    if code.CustomCode():
        return bytes(code.CustomCode()).decode("utf-8", "replace")
    known = {
        value: name
        for name, value in vars(BuiltinOperator.BuiltinOperator).items()
        if isinstance(value, int)
    }
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    return str(known.get(number, number))


def _macs(operator: str, inputs: list[list[int]], output: list[int]) -> int:
    if len(inputs) < _LEAST_INPUTS:
        return 0
    weight = inputs[1]
    if operator == "CONV_2D":
        return prod(output) * prod(weight[1:])
    if operator == "DEPTHWISE_CONV_2D":
        return prod(output) * prod(weight[1:3])
    if operator == "TRANSPOSE_CONV":
        return prod(inputs[-1]) * prod(weight[:3])
    if operator == "FULLY_CONNECTED":
        return prod(output) * weight[-1]
    if operator == "BATCH_MATMUL":
        return prod(output) * inputs[0][-1]
    return 0


def check() -> dict[str, Any]:
    """Say Vela's version; it knows its configurations."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "ethosu.vela", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {"version": done.stdout.strip()}
