"""A release in memory: with a pipeline, without one, and what cannot take frames."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cloud_sync.evidence import Verification
from cloud_sync.messages import DesiredModel
from cloud_sync.release import Layout, Release, ReleaseBuilder
from edge_agent.execution import Execution
from edge_agent.loaded import LoadedRelease, load
from edge_agent.mailbox import Frame
from edge_agent.statistics import Window
from edge_agent.store import ReleaseStore
from edgeml.errors import ModelError
from hardware.pipeline import Raw
from hardware.requirements import Requirements, RuntimeRequirement
from tests.cloud_sync.releases import make_release


def loaded(layout: Layout, release: Release) -> LoadedRelease:
    desired = DesiredModel(
        release=release.digest,
        variant=release.variants[0].digest,
        release_version=release.version,
    )
    return load(ReleaseStore(layout.folder), desired, {}, Execution(runtime="onnxruntime"))


def sum_of_two(folder: Path) -> tuple[Layout, Release]:
    """A release without a pipeline, of a model with two inputs."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in "abc"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["c"])], "sum", values[:2], values[2:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir()
    onnx.save(model, str(folder / "model.onnx"))
    builder = ReleaseBuilder("sum", "1.0.0")
    builder.add_variant(
        target="cpu-test",
        rank=0,
        requires=Requirements(runtimes=(RuntimeRequirement(name="onnxruntime"),)),
        format="onnx",
        precision="float32",
        quantization="",
        verification=Verification.ESTIMATED,
        files={"model": ("model.onnx", folder / "model.onnx")},
    )
    layout = Layout.create(folder / "release")
    return layout, builder.write(layout)


def test_without_a_pipeline_a_tensor_becomes_the_models_outputs(tmp_path: Path) -> None:
    bare = loaded(*make_release(tmp_path / "bare", pipeline=b""))
    window = Window()
    found = []
    for index in range(4):
        tensor = np.full((1, 4, 4), index, np.float32)
        frame = Frame(source="s", index=index, captured=0.0, image=tensor)
        result = bare.infer(frame, window)
        assert isinstance(result, Raw)
        [wanted] = bare.session.run([tensor[np.newaxis].copy()])
        assert np.array_equal(result.outputs[0], wanted)
        found.append(result)
    assert window.inferred == 4
    assert found[0].outputs[0].tolist() == [[0.0, 0.0, 0.0]]  # what came later is not in it
    bare.close()


def test_without_a_pipeline_a_frame_of_another_shape_says_what_is_wanted(tmp_path: Path) -> None:
    bare = loaded(*make_release(tmp_path / "bare", pipeline=b""))
    picture = Frame(source="s", index=0, captured=0.0, image=np.zeros((24, 24, 3), np.uint8))
    with pytest.raises(ModelError, match=r"the model wants image float32\[N, 1, 4, 4\]"):
        bare.infer(picture, Window())
    bare.close()


def test_without_a_pipeline_a_model_of_two_inputs_takes_no_frames(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot take frames\. It has no pipeline, and 2 inputs"):
        loaded(*sum_of_two(tmp_path / "two"))
