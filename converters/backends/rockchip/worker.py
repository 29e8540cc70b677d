"""Builds an RKNN file and answers in its place: the simulator runs the graph just built."""

import importlib
import os
import re
import sys
import tempfile
import time
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

# A row of the table that a build prints: operator, type, where it runs, ..., cycles, ..., names.
_ROW = re.compile(
    r"\]\s+\d+\s+(?P<operator>\w+)\s+\w+\s+(?P<target>NPU|CPU)\s.*?\s"
    r"\d+/\d+/(?P<cycles>\d+)\s+\S+\s+\w+:(?P<name>\S+)"
)
_PICTURE_AXES = 4
_LOG = 2  # standard error, a file: what the toolkit and its libraries print goes there
_built: list[Any] = []


class _Nothing:
    """A base class and a decorator, all that is taken of torch when the toolkit is imported."""

    def __call__(self, function: Any) -> Any:
        return function


class _Placeholder(ModuleType):
    """A module of torch: what is computed with it fails, as `_Nothing` has no such attribute."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing


class _NoTorch(MetaPathFinder, Loader):
    """Stands for torch, which is not installed.

    The toolkit imports it for one quantizer (`gdq`), which is not asked for here; PyPI has torch
    for x86-64 with CUDA alone, gigabytes of it.
    """

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        is_torch = name.partition(".")[0] == "torch"
        return ModuleSpec(name, self, is_package=True) if is_torch else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """See `Loader`."""
        return _Placeholder(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """See `Loader`."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Build `model`, or let what was built answer.

    To build: `model`, `samples` (.npz, an array [n, ...] an input), `platform`, `algorithm`,
    `output`; the reply has `seconds`, `rows` [operator, name, runs on the NPU, cycles], or
    `refused`. To run: `inputs` (.npz, arrays [n, ...]) and `outputs`, the .npz to write.
    """
    return _run(request) if "inputs" in request else _build(request)


def check() -> dict[str, Any]:
    """Import the toolkit; building is what a conversion tests."""
    toolkit = _api().RKNN(verbose=False)
    toolkit.release()
    return {"toolkit": "loads"}


def _api() -> Any:
    if not any(isinstance(finder, _NoTorch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _NoTorch())
    return importlib.import_module("rknn.api")


def _build(request: dict[str, Any]) -> dict[str, Any]:
    api = _api()
    while _built:
        _built.pop().release()
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        dataset = _dataset(Path(folder), Path(request["samples"]))
        written = os.fstat(_LOG).st_size
        toolkit = api.RKNN(verbose=True)
        platform, algorithm = request["platform"], request["algorithm"]
        steps = (
            lambda: toolkit.config(target_platform=platform, quantized_algorithm=algorithm),
            lambda: toolkit.load_onnx(model=request["model"]),
            lambda: toolkit.build(do_quantization=True, dataset=str(dataset)),
            lambda: toolkit.export_rknn(request["output"]),
            toolkit.init_runtime,
        )
        failed = any(step() != 0 for step in steps)
        sys.stdout.flush()
        said = os.pread(_LOG, os.fstat(_LOG).st_size - written, written).decode(errors="replace")
    if failed:
        toolkit.release()
        wrong = [line for line in said.splitlines() if re.match(r"(\x1b\[\S*m)?E ", line)]
        return {"refused": (wrong or said.splitlines() or ["no reason"])[0][:300]}
    _built.append(toolkit)
    return {"seconds": time.perf_counter() - begun, "rows": rows_of(said)}


def rows_of(printed: str) -> list[tuple[str, str, bool, int]]:
    """The rows of the table that a build prints: operator, name, on the NPU or not, cycles."""
    return [
        (row["operator"], row["name"], row["target"] == "NPU", int(row["cycles"]))
        for row in map(_ROW.search, printed.splitlines())
        if row
    ]


def _run(request: dict[str, Any]) -> dict[str, Any]:
    with np.load(request["inputs"]) as stored:
        samples = list(zip(*(stored[name] for name in stored.files), strict=True))
    formats = ["nchw" if x.ndim == _PICTURE_AXES else None for x in samples[0]]
    answers = [_built[0].inference(inputs=list(s), data_format=formats) for s in samples]
    np.savez(request["outputs"], *(np.stack(each) for each in zip(*answers, strict=True)))
    return {"samples": len(answers)}


def _dataset(folder: Path, samples: Path) -> Path:
    lines = []
    with np.load(samples) as stored:
        for index, sample in enumerate(zip(*(stored[n] for n in stored.files), strict=True)):
            paths = [folder / f"{index}-{place}.npy" for place in range(len(sample))]
            for path, tensor in zip(paths, sample, strict=True):
                np.save(path, tensor)
            lines.append(" ".join(map(str, paths)))
    listed = folder / "samples.txt"
    listed.write_text("\n".join(lines))
    return listed
