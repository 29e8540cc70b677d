"""What `--fuse` brings: a frame's whole way, pipeline and model, fused and not, in turns.

    python -m benchmarks.fusing

`M.float_frame` and `M.int8_frame` are milliseconds of processor time (one thread) from an image
of the region to a result, on onnxruntime and OpenVINO; the peer is the same file unfused.
`M.int8_top1` is the accuracy of the plain U8S8 file, made from the same samples. The digits are
the repository's; `cifar_resnet20` is measured where the shared models are.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Row, interleave, main, ratio_row, versions
from benchmarks.shared_models import models_folder
from converters.fusing import check_fused, fuse
from converters.methods import observe, prepare, quantize
from converters.model import FloatModel, load_model
from converters.recipe import static_qdq
from examples.digits.data import splits
from examples.digits.views import NOMINAL, views
from hardware.pipeline import Pipeline, parse
from hardware.runtimes import open_session

Images = NDArray[np.uint8]

_DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
_RUNTIMES = ("onnxruntime", "openvino")
_CIFAR = b"""
version = 1
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
[[pre]]
op = "resize"
width = 32
height = 32
[[pre]]
op = "colour"
to = "rgb"
[[pre]]
op = "scale"
factor = 0.00392156862745098
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
[[pre]]
op = "layout"
to = "NCHW"
[[post]]
op = "softmax"
"""


class Way:
    """A model with its pipeline, on a runtime."""

    def __init__(self, model: Path, pipeline: Pipeline, runtime: str) -> None:
        self._session = open_session(runtime, model)
        self._runner = pipeline.runner(self._session.inputs)

    def answer(self, image: Images) -> int:
        """The class of an image; -1 where there is nothing to infer."""
        tensors = self._runner.prepare(image)
        if tensors is None:
            return -1
        return int(getattr(self._runner.read(self._session.run(tensors)), "index", -1))

    def accuracy(self, images: Images, labels: NDArray[np.int64]) -> float:
        """The share of right answers."""
        given = [self.answer(image) for image in images]
        return float(np.mean(np.array(given) == labels))

    def timed(self, images: Images) -> Callable[[], float]:
        """Milliseconds of processor time a frame."""

        def run() -> float:
            begun = time.process_time()
            for image in images:
                self.answer(image)
            return 1000 * (time.process_time() - begun) / len(images)

        return run


def measure(quick: bool) -> Iterator[Row]:
    """Rows of each model."""
    parts = splits()
    calibration = np.stack(list(views(parts.calibration, NOMINAL, (7, 1))))
    evaluation = np.stack(list(views(parts.evaluation, NOMINAL, (7, 2))))
    yield from _compare(
        "digits",
        load_model(_DIGITS / "digits.onnx"),
        parse((_DIGITS / "pipeline.toml").read_bytes()),
        calibration,
        (evaluation, parts.evaluation.labels),
        quick=quick,
    )
    folder = models_folder()
    if folder is None:
        return
    files = {}
    for split in ("calibration", "dev"):
        with np.load(folder / "cifar_resnet20" / f"{split}.npz") as arrays:
            files[split] = {key: arrays[key] for key in arrays}
            files[split]["x"] = np.ascontiguousarray(files[split]["x"][..., ::-1])  # to BGR
    yield from _compare(
        "cifar_resnet20",
        load_model(folder / "cifar_resnet20" / "float.onnx"),
        parse(_CIFAR),
        files["calibration"]["x"],
        (files["dev"]["x"], files["dev"]["y"]),
        quick=quick,
    )


def _compare(
    name: str,
    model: FloatModel,
    pipeline: Pipeline,
    calibration: Images,
    judged: tuple[Images, NDArray[np.int64]],
    *,
    quick: bool,
) -> Iterator[Row]:
    made = fuse(model, pipeline)
    check_fused(made, model, pipeline, calibration[:16])
    with tempfile.TemporaryDirectory() as folder:
        files: dict[tuple[str, bool], Path] = {}
        pipelines = {False: pipeline, True: made.pipeline}
        for is_fused, given in ((False, model), (True, made.model)):
            for kind in ("float", "int8"):
                path = files[kind, is_fused] = Path(folder) / f"{kind}-{is_fused}.onnx"
                data = given.data
                if kind == "int8":
                    data = _quantized(given, pipelines[is_fused], calibration)
                path.write_bytes(data)
        for runtime in _RUNTIMES:
            for kind in ("float", "int8"):
                ours, peer = (Way(files[kind, f], pipelines[f], runtime) for f in (True, False))
                frames = judged[0][:64]
                yield ratio_row(
                    f"{name}.{kind}_frame.{runtime}",
                    interleave(ours.timed(frames), peer.timed(frames), 15 if quick else 41),
                    unit="ms",
                    peer="unfused",
                )
                if kind == "int8":
                    accuracy, before = ours.accuracy(*judged), peer.accuracy(*judged)
                    yield Row(
                        metric=f"{name}.int8_top1.{runtime}",
                        value=accuracy,
                        unit="",
                        peer="unfused",
                        peer_value=before,
                        n=len(judged[0]),
                    )


def _quantized(model: FloatModel, pipeline: Pipeline, images: Images) -> bytes:
    runner = pipeline.runner(model.inputs)

    def feeds() -> Iterator[list[np.ndarray]]:
        for image in images:
            tensors = runner.prepare(image)
            if tensors is not None:
                yield [tensor.copy() for tensor in tensors]

    prepared = prepare(model.data, islice(feeds(), 4))
    return quantize(prepared, observe(prepared, feeds), static_qdq("u8s8")).data


if __name__ == "__main__":
    main(
        "fusing",
        measure,
        description=(__doc__ or "").splitlines()[0],
        conditions=versions("onnxruntime", "openvino", "numpy") | {"threads": "1"},
    )
