"""Toolkits that quantize a model themselves and then answer with the graph that they built.

What is judged so is the graph (`graph-simulated`), not the exported file, which nothing but the
chip loads.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from converters.axes import fixed_shapes
from converters.backends.graph import Node
from converters.backends.interface import Job, Tensors
from converters.backends.whole import fix_inputs, folded_nodes
from converters.toolchains.service import Service
from converters.toolchains.store import Installed
from hardware.capabilities import RuntimeInfo

_SAMPLES = 200


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """What a toolkit is given: a float model of fixed size, and samples, an array an input.

    `nodes` are the model's after what is constant was folded, `shapes` those of its inputs.
    """

    model: Path
    samples: Path
    nodes: tuple[Node, ...]
    shapes: Mapping[str, tuple[int, ...]]


def prepared(job: Job, folder: Path) -> Prepared:
    """Write the float model and calibration samples into a folder."""
    workshop, model = job.workshop, job.loaded.model
    with job.exclusively:
        feeds = list(workshop.feeds(_SAMPLES))
        shapes = fixed_shapes(model.inputs, feeds[:1], f"the target {job.target.name}")
        proto = onnx.ModelProto()
        proto.CopyFrom(workshop.prepared.proto)
    fix_inputs(proto, model, shapes)
    data = proto.SerializeToString(deterministic=True)
    source, samples = folder / "float.onnx", folder / "samples.npz"
    source.write_bytes(data)
    np.savez(samples, *(np.stack(tensors) for tensors in zip(*feeds, strict=True)))
    nodes = folded_nodes(model, data, shapes)
    return Prepared(model=source, samples=samples, nodes=nodes, shapes=shapes)


class Simulated:
    """A toolkit's process, which has built the model and answers in its place."""

    def __init__(self, service: Service, folder: Path, info: RuntimeInfo) -> None:
        self._service = service
        self._folder = folder
        self.info = info

    def run_each(self, feeds: Sequence[Tensors]) -> list[list[np.ndarray]]:
        """See `Execution.run_each`."""
        inputs, outputs = self._folder / "inputs.npz", self._folder / "outputs.npz"
        np.savez(inputs, *(np.stack(tensors) for tensors in zip(*feeds, strict=True)))
        self._service.ask({"inputs": str(inputs), "outputs": str(outputs)})
        with np.load(outputs) as stored:
            return [list(sample) for sample in zip(*map(stored.get, stored.files), strict=True)]


@contextmanager
def simulated(
    toolchain: Installed, request: dict[str, Any], folder: Path, info: RuntimeInfo
) -> Iterator[Simulated]:
    """What was built for a request, built once more in a process that stays and answers."""
    with Service(toolchain) as service:
        service.ask(request)
        yield Simulated(service, folder, info)
