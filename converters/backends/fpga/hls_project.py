"""hls4ml: an integer graph to a Vitis HLS project, and what its C++ answers, compiled by g++.

Every tensor is of whole numbers, its codes. A layer's weights are its codes times its multiplier,
`2**-shift` and all, which fixed-point types hold exactly; its result type cuts off what is below
one and saturates, so that the C++ computes the integer model's rule and no approximation of it.
"""

import contextlib
import json
import re
import time
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

PROJECT = "edgeml_hls"
_UNROLLED = 4096  # multiplications of a layer that Vitis unrolls; more of them take turns
_UNKNOWN = {"Table": "looks up a function", "ArgMax": "names a class"}


class _RefusedError(Exception):
    """The graph has what hls4ml's layers do not compute exactly."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Write the project of the graph in the file `graph` below the folder `output`, and run it.

    The request: also `codes` (.npy, int64[samples, height, width, channels]), `answers` (.npy, to
    be written), `part` and `clock_ns`.

    The reply: `seconds`, `version`, `interface`; or `refused`, why it cannot be.
    """
    began = time.monotonic()
    graph = json.loads(Path(request["graph"]).read_text(encoding="utf-8"))
    try:
        layers = _Layers(graph)
    except _RefusedError as error:
        return {"refused": str(error)}
    from hls4ml.model.graph import ModelGraph
    from hls4ml.utils.config import create_config

    # A stream is read once, which is enough for windows that do not overlap.
    interface = "io_stream" if layers.convolves and not layers.overlaps else "io_parallel"
    config = create_config(
        output_dir=request["output"],
        project_name=PROJECT,
        backend="Vitis",
        part=request["part"],
        clock_period=request["clock_ns"],
        io_type=interface,
    )
    config["HLSConfig"] = {
        "Model": {"Precision": "fixed<32,32>", "ReuseFactor": 1, "Strategy": "Latency"},
        "LayerName": layers.told,
    }
    model = ModelGraph.from_layer_list(
        config, layers.listed, [layers.listed[0]["name"]], [layers.listed[-1]["name"]]
    )
    with contextlib.chdir(Path(request["output"]).parent):
        model.compile()
        codes = np.load(request["codes"], allow_pickle=False)
        shape = layers.shape(graph["input"])
        made = model.predict(np.ascontiguousarray(codes.reshape(-1, *shape), np.float32))
    # hls4ml's stamp would make the project another with each run.
    script = Path(request["output"], "build_lib.sh")
    script.write_text(
        re.sub(r"LIB_STAMP=\w+", "LIB_STAMP=edgeml", script.read_text("utf-8")), "utf-8"
    )
    output = graph["tensors"][graph["output"]]["shape"]
    np.save(request["answers"], np.asarray(np.rint(made), np.int64).reshape(-1, *output))
    return {
        "seconds": time.monotonic() - began,
        "version": version("hls4ml"),
        "interface": interface,
    }


class _Layers:
    """The layers as hls4ml lists them, and what it is told of each: types and turns."""

    def __init__(self, graph: dict[str, Any]) -> None:
        self.listed: list[dict[str, Any]] = []
        self.told: dict[str, Any] = {}
        self.convolves = self.overlaps = False
        self._tensors = graph["tensors"]
        self._names: dict[str, str] = {}  # of the layer that makes each tensor
        self._shapes: dict[str, list[int]] = {}
        tensor = graph["input"]
        self._names[tensor] = self._add(
            "InputLayer", [], self.shape(tensor), _type(self._tensors[tensor]),
            input_shape=self.shape(tensor),
        )  # fmt: skip
        for layer in graph["layers"]:
            if layer["kind"] in _UNKNOWN:
                raise _RefusedError(f"the layer {layer['name']} {_UNKNOWN[layer['kind']]}")
            made = self._made(layer)
            self._names[layer["output"]] = self._reshaped(made, self.shape(layer["output"]))

    def shape(self, tensor: str) -> list[int]:
        """A picture's height, width and channels, or a vector's length."""
        height, width, channels = self._tensors[tensor]["shape"]
        return [channels] if height * width == 1 else [height, width, channels]

    def _add(self, kind: str, inputs: list[str], shape: list[int], result: str, **more: Any) -> str:
        types = {key: more.pop(key) for key in ("weight", "bias", "accum") if key in more}
        name = f"layer{len(self.listed)}"
        layer = {"name": name, "class_name": kind, "data_format": "channels_last", **more}
        self.listed.append(layer | ({"inputs": inputs} if inputs else {}))
        count = more.get("weight_data", more.get("depthwise_data", np.zeros(0))).size
        turns = -(-count // _UNROLLED)
        self.told[name] = {"Precision": {"result": result} | types} | (
            {"Strategy": "Resource", "ReuseFactor": turns} if turns > 1 else {}
        )
        self._shapes[name] = shape
        return name

    def _reshaped(self, name: str, shape: list[int]) -> str:
        if self._shapes[name] == shape:
            return name
        result = self.told[name]["Precision"]["result"]
        return self._add("Reshape", [name], shape, result, target_shape=shape)

    def _made(self, layer: dict[str, Any]) -> str:
        names = [self._names[tensor] for tensor in layer.get("inputs") or [layer["input"]]]
        kind, output = layer["kind"], self._tensors[layer["output"]]
        if kind == "Concat":
            return self._joined(names, output)
        if kind == "MaxPool":
            return self._largest(layer, names[0])
        if kind == "Add":
            # Both beside each other, then a product for each channel with its two taps.
            channels = output["shape"][2]
            taps = np.zeros((channels, 1, 1, 2 * channels), np.int64)
            for index, tap in enumerate(layer["multipliers"]):
                taps[range(channels), 0, 0, range(index * channels, (index + 1) * channels)] = tap
            both = [self._tensors[tensor] for tensor in layer["inputs"]]
            wider = _holding(both)
            joined = self._joined(names, wider)
            given = wider | {"shape": [*output["shape"][:2], 2 * channels]}
            return self._products(layer | {"pads": [0] * 4, "strides": [1, 1]}, taps, joined, given)
        given = self._tensors[layer["input"]]
        if kind == "SumPool":
            ones = np.ones((given["shape"][2], *layer["kernel"], 1), np.int64)
            return self._products(layer | {"depthwise": True}, ones, names[0], given)
        return self._products(layer, _array(layer["weights"]), names[0], given)

    def _joined(self, names: list[str], output: dict[str, Any]) -> str:
        first, *others = names
        for other in others:
            shapes = [self._shapes[first], self._shapes[other]]
            shape = [*shapes[0][:-1], shapes[0][-1] + shapes[1][-1]]
            rank = len(shape)
            first = self._add(
                "Concatenate", [first, other], shape, _type(output), axis=rank,
                op=f"concatenate{rank}d",
            )  # fmt: skip
        return first

    def _largest(self, layer: dict[str, Any], name: str) -> str:
        given, output = self._tensors[layer["input"]], self._tensors[layer["output"]]
        pads, shape = layer["pads"], given["shape"]
        if any(pads):
            if given["signed"]:
                raise _RefusedError(f"the layer {layer['name']} pads signed codes")
            top, left, bottom, right = pads  # of codes without a sign, 0 is the least
            shape = [shape[0] + top + bottom, shape[1] + left + right, shape[2]]
            name = self._add(
                "ZeroPadding2D", [name], shape, _type(given),
                **_sizes("in", given["shape"]), **_sizes("out", shape), n_chan=shape[2],
                **_pads(pads),
            )  # fmt: skip
        once = prod(output["shape"][:2]) == 1
        strides = layer["kernel"] if once else layer["strides"]
        self.overlaps |= list(strides) != list(layer["kernel"])
        return self._add(
            "MaxPooling2D", [name], output["shape"], _type(output),
            **_sizes("in", shape), **_sizes("out", output["shape"]), n_filt=shape[2],
            **_pair("pool", layer["kernel"]), **_pair("stride", strides),
            **_pads([0] * 4), padding="valid", accum=_type(output),
        )  # fmt: skip

    def _products(
        self, layer: dict[str, Any], weights: np.ndarray, name: str, given: dict[str, Any]
    ) -> str:
        """A convolution or a product with a matrix, exactly."""
        output, rule = self._tensors[layer["output"]], layer["requantize"]
        result = _result(layer["name"], rule, output)
        exact = _Exact(weights, rule, given)
        types = {"weight": exact.weight_type, "bias": exact.bias_type, "accum": exact.sum_type}
        kernel, depthwise = weights.shape[1:3], bool(layer.get("depthwise"))
        whole = list(kernel) == given["shape"][:2] and not any(layer["pads"]) and not depthwise
        if whole:
            size = prod(given["shape"])
            flat = self._reshaped(name, [size])
            return self._add(
                "Dense", [flat], [len(weights)], result,
                n_in=size, n_out=len(weights),
                weight_data=exact.weights.reshape(len(weights), size).T, bias_data=exact.bias,
                **types,
            )  # fmt: skip
        self.convolves = True
        # hls4ml has [height, width, inputs, outputs]; a depthwise layer has one output an input.
        data = exact.weights.transpose(1, 2, 0, 3) if depthwise else (
            exact.weights.transpose(1, 2, 3, 0)
        )  # fmt: skip
        name = self._reshaped(name, given["shape"])
        return self._add(
            "DepthwiseConv2D" if depthwise else "Conv2D", [name], output["shape"], result,
            **_sizes("in", given["shape"]), **_sizes("out", output["shape"]),
            n_chan=given["shape"][2], n_filt=len(weights), **_pair("filt", kernel),
            **_pair("stride", layer["strides"]), **_pads(layer["pads"]),
            padding="same" if any(layer["pads"]) else "valid", depth_multiplier=1, dilation=1,
            **{"depthwise_data" if depthwise else "weight_data": data}, bias_data=exact.bias,
            **types,
        )  # fmt: skip


class _Exact:
    """Weights and biases of a rule as fixed-point numbers, and types that lose nothing."""

    def __init__(self, weights: np.ndarray, rule: dict[str, Any], given: dict[str, Any]) -> None:
        multiplier, shift = _array(rule["multiplier"]), rule["shift"]
        whole = weights * multiplier.reshape(-1, 1, 1, 1)
        below = max(0, shift - _twos(whole))  # bits behind the point
        self.weights = whole / 2.0**shift
        # What a bias has below the products never carries into the whole part: it is cut off.
        cut = _array(rule["bias"]) >> (shift - below)
        self.bias = cut / 2.0**below
        least, most = _range(given)
        flat = np.abs(whole).reshape(len(whole), -1).sum(axis=1)
        reach = int(flat.max()) * max(abs(least), most) >> (shift - below)
        self.weight_type = _fixed(int(np.abs(whole).max()) >> (shift - below), below)
        self.bias_type = _fixed(int(np.abs(cut).max()), below)
        self.sum_type = _fixed(reach + int(np.abs(cut).max()), below)


def _fixed(largest: int, below: int) -> str:
    """A signed type of numbers up to `largest * 2**-below`."""
    width = max(largest.bit_length(), 1) + 1
    return f"fixed<{max(width, below + 1)},{max(width, below + 1) - below}>"


def _twos(values: np.ndarray) -> int:
    """How often all of them can be halved."""
    every = int(np.bitwise_or.reduce(np.abs(values), axis=None))
    return (every & -every).bit_length() - 1 if every else 62


def _range(tensor: dict[str, Any]) -> tuple[int, int]:
    bits, signed = tensor["bits"], int(tensor["signed"])
    return -(1 << (bits - 1)) * signed, (1 << (bits - signed)) - 1


def _type(tensor: dict[str, Any]) -> str:
    """Whole numbers; what is below one is cut off, what is too large saturates."""
    unsigned = "" if tensor["signed"] else "u"
    return f"{unsigned}fixed<{tensor['bits']},{tensor['bits']},TRN,SAT>"


def _result(name: str, rule: dict[str, Any], tensor: dict[str, Any]) -> str:
    """The type that ends where the rule clips."""
    low, high = _range(tensor)
    clipped = (rule["low"], rule["high"])
    if clipped == (low, high):
        return _type(tensor)
    if clipped == (-high, high):
        return _type(tensor).replace("SAT", "SAT_SYM")
    raise _RefusedError(
        f"the layer {name} is clipped to the codes {clipped[0]} to {clipped[1]}, where no type ends"
    )


def _holding(tensors: list[dict[str, Any]]) -> dict[str, Any]:
    """A format that holds the codes of all."""
    signed = any(tensor["signed"] for tensor in tensors)
    bits = max(tensor["bits"] + (signed and not tensor["signed"]) for tensor in tensors)
    return {"signed": signed, "bits": bits}


def _array(tree: dict[str, Any]) -> np.ndarray:
    return np.array(tree["int64"], np.int64).reshape(tree["shape"])


def _sizes(which: str, shape: list[int]) -> dict[str, int]:
    return {f"{which}_height": shape[0], f"{which}_width": shape[1]}


def _pair(which: str, pair: Any) -> dict[str, int]:
    return {f"{which}_height": int(pair[0]), f"{which}_width": int(pair[1])}


def _pads(pads: list[int]) -> dict[str, int]:
    return dict(zip(("pad_top", "pad_left", "pad_bottom", "pad_right"), pads, strict=True))


def check() -> dict[str, Any]:
    """Say hls4ml's version, and that it knows Vitis."""
    from hls4ml.backends import get_available_backends

    if "vitis" not in get_available_backends():
        raise RuntimeError("hls4ml does not know Vitis")
    return {"version": version("hls4ml")}
