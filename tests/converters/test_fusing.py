"""A pipeline's arithmetic taken into the model computes what it computed outside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cloud_sync.evidence import Verdict
from cloud_sync.golden import decode_golden
from cloud_sync.release import Layout as OciLayout
from converters.conversion import convert
from converters.fusing import Fused, check_fused, fuse
from converters.model import FloatModel, load_model
from edgeml.errors import UserError
from hardware.pipeline import Pipeline, parse
from hardware.runtimes import open_session

from .replaying import path_of, read, replay

HEAD = 'version = 1\nlabels = ["a", "b", "c", "d"]\n'
RESIZE = '[[pre]]\nop = "resize"\nwidth = 9\nheight = 7\n'
GRAY = '[[pre]]\nop = "colour"\nto = "gray"\n'
RGB = '[[pre]]\nop = "colour"\nto = "rgb"\n'
SHARE = '[[pre]]\nop = "scale"\nfactor = 0.00392156862745098\n'
IMAGENET = f"{SHARE}mean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n"
SOFTMAX = '[[post]]\nop = "softmax"\n'
TOP = '[[post]]\nop = "top_k"\nk = 2\n[[post]]\nop = "threshold"\nvalue = 0.3\n'


def layout(to: str) -> str:
    return f'[[pre]]\nop = "layout"\nto = "{to}"\n'


def classifier(path: Path, shape: list[Any], dtype: int = TensorProto.FLOAT) -> FloatModel:
    """Flatten and multiply; for bytes after a cast."""
    size = int(np.prod([d for d in shape[1:] if isinstance(d, int)]))
    weight = np.random.default_rng(0).normal(size=(size, 4)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    sets = [helper.make_opsetid("", 11)]
    onnx.save(helper.make_model(graph, opset_imports=sets, ir_version=8), path)
    return load_model(path)


def images(*shape: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, shape).astype(np.uint8) for _ in range(5)]


def fused_and_checked(model: FloatModel, text: str, samples: list[np.ndarray]) -> Fused:
    pipeline = parse(text.encode())
    made = fuse(model, pipeline)
    check_fused(made, model, pipeline, samples)
    assert parse(made.data) == made.pipeline
    return made


COLOURED, GREY = (20, 30, 3), (20, 30)


@pytest.mark.parametrize(
    ("text", "shape", "image", "steps"),
    [
        (RESIZE + RGB + IMAGENET + layout("NCHW"), ["N", 3, 7, 9], COLOURED, "colour scale layout"),
        (RESIZE + RGB + IMAGENET + layout("NCHW"), ["N", 3, 7, 9], GREY, "colour scale layout"),
        (RESIZE + IMAGENET + RGB + layout("NHWC"), ["N", 7, 9, 3], COLOURED, "scale colour layout"),
        (RGB + RESIZE + SHARE + layout("NCHW"), [1, 3, 7, 9], GREY, "scale layout"),
        (GRAY + RESIZE + SHARE + layout("NHW"), [1, 7, 9], COLOURED, "scale layout"),
        (GRAY + RESIZE + SHARE * 2 + layout("NCHW"), ["N", 1, 7, 9], GREY, "scale scale layout"),
        (RESIZE + GRAY + SHARE + layout("NHWC"), ["N", 7, 9, 1], COLOURED, "scale layout"),
    ],
)
def test_both_ways_answer_the_same(
    tmp_path: Path, text: str, shape: list[Any], image: tuple[int, ...], steps: str
) -> None:
    model = classifier(tmp_path / "m.onnx", shape)
    made = fused_and_checked(model, HEAD + text + SOFTMAX + TOP, images(*image))
    assert made.steps == (*steps.split(), "softmax")
    [spec] = made.model.inputs
    assert (spec.dtype, spec.shape) == ("uint8", (1, 7, 9, 3 if 3 in shape else 1))
    assert [type(step).__name__ for step in made.pipeline.post] == ["TopK", "Threshold"]


def test_the_rest_of_the_pipeline_reads_the_same_results(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx", ["N", 3, 7, 9])
    text = HEAD + RESIZE + RGB + IMAGENET + layout("NCHW") + SOFTMAX + TOP
    samples = images(20, 30, 3)
    made = fused_and_checked(model, text, samples)
    (tmp_path / "fused.onnx").write_bytes(made.model.data)
    ways: list[tuple[Path, Pipeline]] = [
        (tmp_path / "m.onnx", parse(text.encode())),
        (tmp_path / "fused.onnx", made.pipeline),
    ]
    results = []
    for path, pipeline in ways:
        session = open_session("onnxruntime", path)
        runner = pipeline.runner(session.inputs)
        results.append([runner.read(session.run(runner.prepare(s) or [])) for s in samples])
    for one, other in zip(*results, strict=True):
        assert [label for label, _ in one.top] == [label for label, _ in other.top]
        np.testing.assert_allclose(
            [score for _, score in one.top], [score for _, score in other.top], atol=1e-5
        )


def test_a_size_that_the_model_leaves_free_is_the_pipelines(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx", ["N", 3, 7, 9])
    proto = onnx.load(tmp_path / "m.onnx")
    for axis, name in ((2, "height"), (3, "width")):
        proto.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(proto, tmp_path / "m.onnx")
    model = load_model(tmp_path / "m.onnx")
    text = HEAD + RESIZE + RGB + SHARE + layout("NCHW")
    made = fused_and_checked(model, text, images(20, 30, 3))
    assert made.model.inputs[0].shape == (1, 7, 9, 3)


def test_a_model_of_bytes_takes_the_layout_alone(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx", ["N", 3, 7, 9], TensorProto.UINT8)
    made = fused_and_checked(model, HEAD + RESIZE + RGB + layout("NCHW"), images(20, 30, 3))
    assert made.steps == ("colour", "layout")


@pytest.mark.parametrize(
    ("text", "shape", "words"),
    [
        (RESIZE + SHARE, ["N", 3, 7, 9], "last step before the model is not layout"),
        (SHARE + RESIZE + layout("NCHW"), ["N", 3, 7, 9], "step behind scale has to stay outside"),
        (RESIZE + layout("NCHW"), ["N", 3, 7, 9], "makes uint8, the model takes x float32"),
        (RESIZE + SHARE + layout("NCHW"), ["N", "C", 7, 9], "how many channels"),
        (RESIZE + RGB + SHARE + layout("NCHW"), ["N", 1, 7, 9], "makes three colours"),
        (GRAY + RESIZE + IMAGENET + layout("NCHW"), ["N", 1, 7, 9], "scales 3 channels"),
        (RESIZE + SHARE + layout("NCHW"), ["N", 27], "makes NCHW, the model takes"),
        (
            RESIZE + '[[pre]]\nop = "scale"\nfactor = 0.0\n' + layout("NCHW"),
            ["N", 3, 7, 9],
            "factor 0",
        ),
    ],
)
def test_what_cannot_be_fused_is_refused_with_the_reason(
    tmp_path: Path, text: str, shape: list[Any], words: str
) -> None:
    model = classifier(tmp_path / "m.onnx", shape)
    with pytest.raises(UserError, match=words) as caught:
        fuse(model, parse((HEAD + text).encode()))
    assert "cannot be fused" in caught.value.what
    assert "--fuse" in caught.value.fix


def test_what_answers_otherwise_is_refused(tmp_path: Path) -> None:
    model = classifier(tmp_path / "m.onnx", ["N", 3, 7, 9])
    right, wrong = (
        parse((HEAD + RESIZE + order + SHARE + layout("NCHW")).encode()) for order in (RGB, "")
    )
    with pytest.raises(UserError, match="outputs would differ"):
        check_fused(fuse(model, wrong), model, right, images(20, 30, 3))


def test_a_release_of_a_fused_model_is_what_a_device_needs(
    convnet: Path,
    pipeline_file: Path,
    tmp_path: Path,
    make_images: Callable[..., tuple[Path, Path]],
) -> None:
    calibration, evaluation = make_images()
    asked = {
        "calibration": calibration,
        "evaluation": evaluation,
        "name": "quarters",
        "version": "1",
        "pipeline": pipeline_file,
        "min_speedup": 0.0,
    }
    result = convert(convnet, out=tmp_path / "out", targets=("cpu",), fuse=True, **asked)
    assert {v.precision for v in result.variants} == {"float32", "int8"}
    assert all(v.accuracy.value > 0.98 for v in result.variants)
    for variant in OciLayout.open(result.path).release().variants:
        left = parse(read(result.path, variant, "pipeline"))
        assert [type(step).__name__ for step in left.pre] == ["Colour", "Resize", "Layout"]
        session = open_session("onnxruntime", path_of(result.path, variant, "model"))
        assert (session.inputs[0].dtype, session.inputs[0].shape) == ("uint8", (1, 12, 12, 1))
        tested = replay(result.path, variant, with_pipeline=True)
        assert tested.error == ""
        assert tested.gates[0].result is Verdict.PASS
        golden = decode_golden(read(result.path, variant, "golden"))
        np.testing.assert_allclose(golden.outputs[0].sum(axis=1), 1, atol=1e-5)
    replayed = convert(convnet, out=tmp_path / "again", recipe=result.variants[0].recipe, **asked)
    assert replayed.release == result.release
