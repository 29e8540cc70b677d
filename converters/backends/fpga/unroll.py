"""da4ml: an integer graph to Verilog in which every multiplication is an adder tree of its own."""

import json
import re
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

MODULE = "edgeml_unrolled"
_UNKNOWN = {"Table", "ArgMax"}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Unroll the graph in the file `graph` into Verilog below the folder `output`.

    The request: also `cutoff`, the levels of logic between two registers.

    The reply: `module`, `cycles` from input to output, `cost` (da4ml's LUTs), `layers`, what each
    takes of both, `inputs` and `outputs`, for each port value whether it is signed, and its bits,
    the first in the lowest bits; `seconds`, `version`; or `refused`, why it cannot be.
    """
    from da4ml.codegen import VerilogModel
    from da4ml.trace import FixedVariableArray, HWConfig, comb_trace
    from da4ml.types import minimal_kif

    graph = json.loads(Path(request["graph"]).read_text(encoding="utf-8"))
    unknown = [layer["kind"] for layer in graph["layers"] if layer["kind"] in _UNKNOWN]
    if unknown:
        return {"refused": f"a {unknown[0]} is not unrolled"}
    began = time.monotonic()
    tensor = graph["tensors"][graph["input"]]
    shape, signed = tensor["shape"], int(tensor["signed"])
    given = FixedVariableArray.from_kif(
        np.full(shape, signed),
        np.full(shape, tensor["bits"] - signed),
        np.zeros(shape, int),
        HWConfig(1, -1, -1),
    )
    values = {graph["input"]: given}
    for layer in graph["layers"]:
        inputs = [values[name] for name in layer.get("inputs") or [layer["input"]]]
        values[layer["output"]] = _computed(layer, inputs)
    logic = comb_trace(given, values[graph["output"]])
    model = VerilogModel(
        logic, MODULE, request["output"], latency_cutoff=request["cutoff"], print_latency=False
    )
    model.write()
    for source in Path(request["output"]).rglob("*.v"):
        # Verilator knew these warnings by one name before 5.012.
        said = re.sub(r"WIDTH(TRUNC|EXPAND)", "WIDTH", source.read_text(encoding="utf-8"))
        source.write_text(said, encoding="utf-8")
    solved = model._pipe or logic  # noqa: SLF001 -- da4ml has no other name for what it wrote
    return {
        "module": MODULE,
        "cycles": len(solved.solutions) if model._pipe else 0,  # noqa: SLF001
        "cost": float(solved.cost),
        "layers": _placed(graph, values),
        "inputs": [_port(minimal_kif(interval)) for interval in solved.inp_qint],
        "outputs": [_port(minimal_kif(interval)) for interval in solved.out_qint],
        "seconds": time.monotonic() - began,
        "version": version("da4ml"),
    }


def _placed(graph: dict[str, Any], values: dict[str, Any]) -> list[dict[str, Any]]:
    """Between which levels of logic each layer lies, and what it takes, by da4ml's estimate."""
    from da4ml.trace import comb_trace

    given, seen, total, found = values[graph["input"]], [], 0.0, []
    for layer in graph["layers"]:
        made = values[layer["output"]].reshape(-1)
        inputs = [values[name] for name in layer.get("inputs") or [layer["input"]]]
        seen.append(made)
        before, total = total, float(comb_trace(given, np.concatenate(seen)).cost)
        found.append(
            {
                "name": layer["name"],
                "kind": layer["kind"],
                "from": min(_levels(one).min() for one in inputs),
                "to": _levels(made).max(),
                "luts": total - before,
            }
        )
    return found


def _levels(values: Any) -> np.ndarray:
    """How deep in the logic each value is there."""
    return np.array([value.latency for value in values.reshape(-1)], float)


def _port(kif: Any) -> list[int]:
    signed, integer, fraction = (int(part) for part in kif)
    if fraction > 0:
        raise ValueError(f"a code has {fraction} bits behind the point")
    # Bits below the point that are always zero are no wires: `-fraction` of them.
    return [signed, signed + integer + fraction, -fraction]


def _array(tree: dict[str, Any]) -> np.ndarray:
    return np.array(tree["int64"], np.int64).reshape(tree["shape"])


def _computed(layer: dict[str, Any], inputs: list[Any]) -> Any:
    given = inputs[0]
    kind = layer["kind"]
    if kind == "Concat":
        return np.concatenate(inputs, axis=-1)
    if kind == "MaxPool":
        return _rows([[_largest(seen) for seen in row] for row in _windows(layer, given)])
    if kind == "Add":
        first, second = layer["multipliers"]
        return _requantized(given * float(first) + inputs[1] * float(second), layer["requantize"])
    if kind == "SumPool":
        sums = [[_total(seen) for seen in row] for row in _windows(layer, given)]
    else:
        weights = _array(layer["weights"]).astype(float)
        sums = [[_products(layer, seen, weights) for seen in row] for row in _windows(layer, given)]
    return _requantized(_rows(sums), layer["requantize"])


def _rows(rows: list[list[Any]]) -> Any:
    return np.stack([np.stack(row) for row in rows])


def _windows(layer: dict[str, Any], given: Any) -> list[list[list[tuple[int, int, Any]]]]:
    """For each output place what its window sees: rows and columns of the kernel, and a pixel."""
    kernel = layer.get("kernel") or layer["weights"]["shape"][1:3]
    top, left, bottom, right = layer["pads"]
    height, width = given.shape[:2]
    down, along = layer["strides"]
    return [
        [
            [
                (i, j, given[y + i, x + j])
                for i in range(kernel[0])
                for j in range(kernel[1])
                if 0 <= y + i < height and 0 <= x + j < width
            ]
            for x in range(-left, width + right - kernel[1] + 1, along)
        ]
        for y in range(-top, height + bottom - kernel[0] + 1, down)
    ]


def _products(layer: dict[str, Any], seen: list[tuple[int, int, Any]], weights: np.ndarray) -> Any:
    if layer["depthwise"]:
        return _total([(i, j, pixel * weights[:, i, j, 0]) for i, j, pixel in seen])
    taps = np.concatenate([weights[:, i, j, :] for i, j, _ in seen], axis=1)
    return np.concatenate([pixel for _, _, pixel in seen]) @ taps.T


def _total(seen: list[tuple[int, int, Any]]) -> Any:
    total = seen[0][2]
    for _, _, pixel in seen[1:]:
        total = total + pixel
    return total


def _largest(seen: list[tuple[int, int, Any]]) -> Any:
    most = seen[0][2]
    for _, _, pixel in seen[1:]:
        most = np.maximum(most, pixel)
    return most


def _requantized(sums: Any, rule: dict[str, Any]) -> Any:
    """`clamp((sum * multiplier + bias) >> shift, low, high)`, the multiplier a power of two.

    What a bias has below both the multiplier and the step of a code never carries, so it is left
    out.
    """
    multiplier, bias = _array(rule["multiplier"]), _array(rule["bias"])
    if np.any(multiplier & (multiplier - 1)):
        raise ValueError("a multiplier is no power of two")
    unit = np.clip(multiplier, 1, 1 << rule["shift"])
    scale = 2.0 ** -rule["shift"]
    moved = sums * (multiplier * scale) + (bias // unit * unit) * scale
    low, high = rule["low"], rule["high"]
    whole = moved.quantize(*_whole(moved))
    return np.minimum(np.maximum(whole, float(low)), float(high))


def _whole(moved: Any) -> tuple[Any, Any, int]:
    """The sign and the integer bits that values have, and no fraction: the floor."""
    signed, integer, _ = moved.kif
    return signed, np.maximum(integer, 1), 0


def check() -> dict[str, Any]:
    """Say da4ml's version, and that its solver works: two values added."""
    from da4ml.trace import FixedVariableArray, HWConfig, comb_trace

    given = FixedVariableArray.from_kif(
        np.ones(2, int), np.full(2, 3), np.zeros(2, int), HWConfig(1, -1, -1)
    )
    comb_trace(given, given @ np.array([[1.0], [3.0]]))
    return {"version": version("da4ml")}
