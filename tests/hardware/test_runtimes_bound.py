"""Arrays that come again are bound: what they give is what arrays of one's own would."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeml.errors import ModelError
from hardware.pipeline import parse
from hardware.runtimes import open_session
from tests.hardware.models import linear

RNG = np.random.default_rng(4)
SHAPE = (1, 1, 4, 4)
RUNTIMES = ("onnxruntime", "openvino")
PIPELINE = """
version = 1
labels = ["a", "b", "c"]
[[pre]]
op = "resize"
width = 4
height = 4
[[pre]]
op = "scale"
factor = 0.004
[[pre]]
op = "layout"
to = "NCHW"
"""


def image() -> np.ndarray:
    return RNG.normal(size=SHAPE).astype(np.float32)


def graph(path: Path, *nodes: onnx.NodeProto, axes: list[int | str], kind: int) -> Path:
    """A model `x` [n] float32 -> `y` of these axes, as it says."""
    made = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", kind, axes)],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_array_that_comes_again_gives_what_a_copy_of_it_gives(name: str, tmp_path: Path) -> None:
    session = open_session(name, linear(tmp_path / "m.onnx"))
    other = open_session(name, tmp_path / "m.onnx")
    given = image()
    for _ in range(5):
        given[:] = image()
        [bound], [own] = session.run([given]), other.run([given.copy()])
        assert np.array_equal(bound, own)


def test_bound_outputs_are_made_once(tmp_path: Path) -> None:
    session = open_session("onnxruntime", linear(tmp_path / "m.onnx"))
    given = image()
    session.run([given])
    session.run([given])
    [first], [second] = session.run([given]), session.run([given])
    assert first is second


def test_arrays_of_ones_own_give_outputs_of_ones_own(tmp_path: Path) -> None:
    session = open_session("onnxruntime", linear(tmp_path / "m.onnx"))
    kept = [session.run([image()])[0] for _ in range(4)]
    assert len({id(output) for output in kept}) == len(kept)
    assert not any(np.shares_memory(kept[0], other) for other in kept[1:])


@pytest.mark.parametrize("name", RUNTIMES)
def test_other_inputs_between_do_not_mix_with_those_that_come_again(
    name: str, tmp_path: Path
) -> None:
    session = open_session(name, linear(tmp_path / "m.onnx"))
    other = open_session(name, tmp_path / "m.onnx")
    given, batch = image(), np.concatenate([image(), image()])
    for _ in range(4):
        given[:] = image()
        assert np.array_equal(session.run([given])[0], other.run([given.copy()])[0])
        assert session.run([batch])[0].shape == (2, 3)
        with pytest.raises(ModelError, match="does not fit"):
            session.run([given[..., :3]])
        between = image()
        assert np.array_equal(session.run([between])[0], other.run([between.copy()])[0])


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_array_that_is_no_block_of_memory_is_read_anew_each_time(
    name: str, tmp_path: Path
) -> None:
    session = open_session(name, linear(tmp_path / "m.onnx"))
    wide = RNG.normal(size=(1, 1, 4, 8)).astype(np.float32)
    view = wide[..., ::2]
    for _ in range(4):
        wide[:] = RNG.normal(size=wide.shape)
        found = session.run([view])[0].copy()
        assert np.array_equal(found, session.run([view.copy()])[0])


def test_a_wrong_array_is_refused_however_often_it_comes(tmp_path: Path) -> None:
    session = open_session("onnxruntime", linear(tmp_path / "m.onnx"))
    wrong = np.ones((1, 1, 4, 5), np.float32)
    for _ in range(3):
        with pytest.raises(ModelError, match="does not fit"):
            session.run([wrong])


def test_outputs_whose_size_depends_on_the_data_are_made_by_the_runtime(tmp_path: Path) -> None:
    node = helper.make_node("NonZero", ["x"], ["y"])
    path = graph(tmp_path / "m.onnx", node, axes=[1, "found"], kind=TensorProto.INT64)
    session = open_session("onnxruntime", path)
    given = np.zeros(6, np.float32)
    for count in range(1, 6):
        given[:count] = 1
        [found] = session.run([given])
        assert found.tolist() == [list(range(count))]


def test_a_model_that_is_wrong_about_its_output_still_runs(tmp_path: Path) -> None:
    # It says n, and gives as many as there are in the data.
    nodes = (
        helper.make_node("NonZero", ["x"], ["which"]),
        helper.make_node("Squeeze", ["which"], ["y"]),
    )
    path = graph(tmp_path / "m.onnx", *nodes, axes=["n"], kind=TensorProto.INT64)
    session = open_session("onnxruntime", path)
    given = np.ones(6, np.float32)
    for count in (6, 6, 6, 3, 2, 2, 6):
        given[:] = 0
        given[:count] = 1
        assert session.run([given])[0].tolist() == list(range(count))


def test_a_pipeline_prepares_every_picture_in_what_is_bound(tmp_path: Path) -> None:
    session = open_session("onnxruntime", linear(tmp_path / "m.onnx"))
    other = open_session("onnxruntime", tmp_path / "m.onnx")
    runner = parse(PIPELINE.encode()).runner(session.inputs)
    given: list[np.ndarray] = []
    for _ in range(5):
        prepared = runner.prepare(RNG.integers(0, 256, (9, 7), np.uint8))
        assert prepared is not None
        given += session.run(prepared)
        [wanted] = other.run([prepared[0].copy()])
        assert np.array_equal(given[-1], wanted)
    assert given[-1] is given[-2]


@pytest.mark.parametrize("name", RUNTIMES)
def test_inputs_that_may_not_be_written_to_are_read_as_they_are(name: str, tmp_path: Path) -> None:
    session = open_session(name, linear(tmp_path / "m.onnx"))
    other = open_session(name, tmp_path / "m.onnx")
    for _ in range(20):
        wanted = image()
        given = np.frombuffer(wanted.tobytes(), np.float32).reshape(SHAPE)
        [found] = session.run([given])
        assert np.array_equal(found, other.run([wanted])[0])


def laid(kind: str, values: np.ndarray) -> np.ndarray:
    """The same values in memory of another make."""
    if kind == "read-only":
        return np.frombuffer(values.tobytes(), np.float32).reshape(SHAPE)
    if kind == "unaligned":
        return np.frombuffer(bytearray(b"-" + values.tobytes()), np.float32, offset=1).reshape(
            SHAPE
        )
    if kind == "strided":
        return np.repeat(values, 2, axis=-1)[..., ::2]
    return np.asfortranarray(values) if kind == "by columns" else values


def answers_as_another(name: str, path: Path, shared: list[np.ndarray], seed: int) -> int:
    """How many of 300 runs differ from what a session that is given copies answers."""
    random, pool, wrong = np.random.default_rng(seed), list(shared), 0
    session, other = open_session(name, path), open_session(name, path)
    for _ in range(300):
        if random.random() < 0.3:
            kind = random.choice(["own", "read-only", "unaligned", "strided", "by columns"])
            pool = [*pool[-4:], laid(kind, random.normal(size=SHAPE).astype(np.float32))]
        given = pool[random.integers(len(pool))]
        if not any(given is one for one in shared) and given.flags.writeable:
            given[...] = random.normal(size=SHAPE)
        for _ in range(random.integers(1, 4)):
            found = session.run([given])[0].copy()
            wrong += not np.allclose(found, other.run([given.copy()])[0], rtol=1e-5, atol=1e-5)
        freed = [np.full(SHAPE, np.nan, np.float32) for _ in range(4)]  # takes what was given back
        del freed
    return wrong


@pytest.mark.parametrize("name", RUNTIMES)
def test_whatever_memory_inputs_lie_in_and_whoever_shares_them_results_are_theirs(
    name: str, tmp_path: Path
) -> None:
    path, shared = linear(tmp_path / "m.onnx"), [image(), laid("read-only", image())]
    with ThreadPoolExecutor(3) as pool:
        wrong = [pool.submit(answers_as_another, name, path, shared, seed) for seed in range(3)]
        assert [each.result() for each in wrong] == [0, 0, 0]
