"""What a runtime compiled here: loaded again to the same bits, made again when it is damaged."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from hardware.runtimes import SessionOptions, open_session
from hardware.runtimes.compiled import Compiled
from tests.hardware.models import linear
from tests.needs import module

RUNTIMES = ("onnxruntime", "openvino")
INPUT = np.random.default_rng(1).normal(size=(1, 1, 4, 4)).astype(np.float32)


def answer(name: str, model: Path, folder: Path | str) -> np.ndarray:
    session = open_session(name, model, SessionOptions(compiled=str(folder)))
    assert [spec.name for spec in (*session.inputs, *session.outputs)] == ["image", "logits"]
    assert sum(session.placement().values()) >= 1
    return session.run([INPUT])[0].copy()


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    module(request.param)
    return str(request.param)


def test_what_was_compiled_here_answers_the_same_bits(runtime: str, tmp_path: Path) -> None:
    model, folder = linear(tmp_path / "m.onnx"), tmp_path / "compiled"
    plain = answer(runtime, model, "")
    assert not folder.exists()
    assert np.array_equal(answer(runtime, model, folder), plain)
    [kept] = folder.iterdir()
    # What is loaded now is the kept file: the model itself could not be read any more.
    model.write_bytes(model.read_bytes()[:60])
    assert np.array_equal(answer(runtime, model, folder), plain)
    assert [kept] == list(folder.iterdir())


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_file_is_made_again(runtime: str, damage: str, tmp_path: Path) -> None:
    model, folder = linear(tmp_path / "m.onnx"), tmp_path / "compiled"
    plain = answer(runtime, model, folder)
    [kept] = folder.iterdir()
    good = kept.read_bytes()
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 0xFF]) + good[middle + 1 :]
    kept.write_bytes({"flipped": flipped, "cut": good[:middle], "empty": b""}[damage])
    assert np.array_equal(answer(runtime, model, folder), plain)
    [again] = folder.iterdir()
    assert again.name.endswith(hashlib.sha256(again.read_bytes()).hexdigest())


def test_a_file_that_the_runtime_does_not_take_is_passed_over(tmp_path: Path) -> None:
    model, folder = linear(tmp_path / "m.onnx"), tmp_path / "compiled"
    plain = answer("onnxruntime", model, folder)
    [kept] = folder.iterdir()
    # Whole by its name, and yet nothing that onnxruntime can load.
    import onnxruntime

    Compiled(folder, ("onnxruntime", onnxruntime.__version__)).keep(
        lambda path: path.write_bytes(b"nonsense")
    )
    assert kept not in list(folder.iterdir())
    assert np.array_equal(answer("onnxruntime", model, folder), plain)


def test_what_another_version_made_is_not_found_and_goes(tmp_path: Path) -> None:
    old, new = (Compiled(tmp_path, ("r", version)) for version in ("1.0", "1.1"))
    old.keep(lambda path: path.write_bytes(b"old"))
    assert old.find() is not None
    assert new.find() is None
    new.keep(lambda path: path.write_bytes(b"new"))
    assert old.find() is None
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"new"]


def test_other_options_are_kept_beside(tmp_path: Path) -> None:
    one, two = (Compiled(tmp_path, ("r", "1"), options) for options in ("1", "2"))
    for kept, data in ((one, b"1"), (two, b"2")):
        kept.keep(lambda path, data=data: path.write_bytes(data))
    found = [kept.find() for kept in (one, two)]
    assert [file and file.read_bytes() for file in found] == [b"1", b"2"]


def test_a_folder_that_cannot_be_made_keeps_nothing_and_the_model_runs(tmp_path: Path) -> None:
    model = linear(tmp_path / "m.onnx")
    (tmp_path / "file").write_text("")
    assert answer("onnxruntime", model, tmp_path / "file" / "compiled").shape == (1, 3)


def test_a_provider_that_takes_no_node_says_so_in_the_placement(tmp_path: Path) -> None:
    import onnxruntime

    if "AzureExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CPU alone")
    options = SessionOptions(provider="AzureExecutionProvider")
    session = open_session("onnxruntime", linear(tmp_path / "m.onnx"), options)
    # It is among the providers, and yet the CPU runs it all.
    assert session.placement() == {"CPUExecutionProvider": 2}
