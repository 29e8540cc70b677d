"""Free axes of a model's inputs: which there are, what fixes them, and who may have to.

The batch axis stays free: one sample is fed at a time. Other free axes stay so too, and take
what each sample brings, until somebody fixes them: the user, with `--dim NAME=VALUE`, or a tool
that makes files of one size and asks the data (`fixed_shapes`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from converters.methods.sessions import NONE, open_bytes
from converters.model import FloatModel, describe, parse
from edgeml.errors import UserError
from hardware.runtimes.formats import ONNX
from hardware.runtimes.interface import TensorSpec

_MOST = 1 << 31


class FreeAxis(msgspec.Struct, frozen=True):
    """Axis number `axis` of the input `tensor`, and its symbol; unnamed ones have the symbol ?."""

    tensor: str
    axis: int
    symbol: str

    @property
    def address(self) -> str:
        """What always names it: `image:2`."""
        return f"{self.tensor}:{self.axis}"

    def __str__(self) -> str:
        return self.address if self.symbol == "?" else f"{self.symbol} ({self.address})"


def free_axes(inputs: Sequence[TensorSpec]) -> tuple[FreeAxis, ...]:
    """Every axis of the inputs whose size is no number."""
    return tuple(
        FreeAxis(spec.name, axis, size)
        for spec in inputs
        for axis, size in enumerate(spec.shape)
        if isinstance(size, str)
    )


def parse_dims(texts: Iterable[str]) -> dict[str, int]:
    """`NAME=VALUE` as given on the command line, by name.

    Raises:
        UserError: one is of another form, no whole number above 0, or there twice.
    """
    dims: dict[str, int] = {}
    for text in texts:
        name, _, value = text.rpartition("=")
        if not (name and value.isascii() and value.isdigit() and 0 < int(value) < _MOST):
            raise UserError(
                f"--dim {text} cannot be used.",
                why="Its form is NAME=VALUE with a whole number above 0: height=320, or x:2=320 "
                "for axis 2 of the input x.",
            )
        if name in dims:
            raise UserError(f"--dim {name} was given twice.")
        dims[name] = int(value)
    return dims


def fix_axes(model: FloatModel, dims: Mapping[str, int]) -> FloatModel:
    """The model with some of its free axes fixed; another model, with another digest.

    Args:
        model: a model.
        dims: sizes by symbol, which fixes the axis wherever the symbol stands, or by
            `input:axis`.

    Raises:
        UserError: there is no such free axis, two sizes contradict each other, or the graph
            cannot be of that size.
    """
    if not dims:
        return model
    if model.format != ONNX:
        raise UserError("--dim is for ONNX models.", why=f"{model.path} is {model.format}.")
    axes = free_axes(model.inputs)
    symbols: dict[str, int] = {}
    sizes: dict[tuple[str, int], int] = {}
    for name, value in dims.items():
        meant = [axis for axis in axes if name in {axis.symbol, axis.address} and name != "?"]
        if not meant:
            raise _unknown(model, name)
        for axis in meant:
            places = {axis} if axis.symbol == "?" else {a for a in axes if a.symbol == axis.symbol}
            for place in places:
                if sizes.setdefault((place.tensor, place.axis), value) != value:
                    raise UserError(f"--dim gives the axis {place} two sizes.")
            if axis.symbol != "?":
                symbols[axis.symbol] = value
    proto = parse(model.path, model.data)
    fix_sizes(proto, symbols, sizes)
    data: bytes = proto.SerializeToString(deterministic=True)
    try:
        open_bytes(data, NONE)
    except Exception as error:  # noqa: BLE001 -- onnxruntime's errors have no better class
        said = str(error).strip().splitlines()[0]
        raise UserError(
            f"{model.path} cannot have {', '.join(f'{n}={v}' for n, v in dims.items())}.",
            why=f"{said.rpartition(' : ')[2]}",
        ) from None
    return describe(model.path, proto, data)


def fixed_shapes(
    inputs: Sequence[TensorSpec], feeds: Iterable[Sequence[np.ndarray]], needed_by: str
) -> dict[str, tuple[int, ...]]:
    """The whole shape of each input, from the samples where the model leaves an axis free.

    Args:
        inputs: the model's.
        feeds: samples as the model takes them, one tensor an input; read until all is known
            only where nothing is free.
        needed_by: who cannot do with free axes, for the error: `the runtime litert`.

    Raises:
        UserError: samples differ in a free axis; the sentence names it and the option.
    """
    free = free_axes(inputs)
    seen: dict[FreeAxis, int] = {}
    for feed in feeds if free else ():
        tensors = dict(zip((spec.name for spec in inputs), feed, strict=True))
        for axis in free:
            size = tensors[axis.tensor].shape[axis.axis]
            if seen.setdefault(axis, size) != size:
                name = axis.address if axis.symbol == "?" else axis.symbol
                raise UserError(
                    f"The axis {axis} of the model must be fixed.",
                    why=f"The data do not decide it, samples have {seen[axis]} and {size} there, "
                    f"and {needed_by} takes one size only.",
                    fix=f"Give --dim {name}=VALUE, and samples of that size.",
                )
    sizes = {(axis.tensor, axis.axis): size for axis, size in seen.items()}
    return {
        spec.name: tuple(
            size if isinstance(size, int) else sizes[spec.name, axis]
            for axis, size in enumerate(spec.shape)
        )
        for spec in inputs
    }


def fix_sizes(proto: Any, symbols: Mapping[str, int], sizes: Mapping[tuple[str, int], int]) -> None:
    """Write sizes into an `onnx.ModelProto`, by symbol and by (input, axis)."""
    graph = proto.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            size = symbols.get(dim.dim_param) or sizes.get((value.name, axis))
            if size is not None:
                dim.dim_value = size


def _unknown(model: FloatModel, name: str) -> UserError:
    spec, _, axis = name.rpartition(":")
    known = next((s for s in model.inputs if s.name == spec), None)
    if known and axis.isdigit() and int(axis) < len(known.shape):
        return UserError(
            f"The axis {name} of {model.path} is not free.",
            why=f"It is {known.shape[int(axis)]}.",
            fix="Leave out this --dim, or export the model with a free axis.",
        )
    axes = ", ".join(dict.fromkeys(map(str, free_axes(model.inputs)))) or "none"
    return UserError(
        f"{model.path} has no free axis {name}.",
        why=f"Free are: {axes}.",
        fix="Name one of them, or an axis without a name as input:axis.",
    )
