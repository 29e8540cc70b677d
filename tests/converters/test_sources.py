"""Samples come from folders of images and from functions as well as from an `.npz`."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from converters.dataset import VARIES, open_dataset, refuse_overlap
from edgeml.errors import EdgemlError, ModelError, UserError


def image(seed: int, height: int = 8, width: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for name, seed in [("dog/b", 1), ("cat/2", 2), ("cat/deep/1", 3)]:
        write(tmp_path / "animals" / f"{name}.png", image(seed))
    (tmp_path / "animals" / "ape").mkdir()
    (tmp_path / "animals" / "cat" / "notes.txt").write_text("no image")
    return tmp_path / "animals"


def test_sub_folders_are_classes_in_the_order_of_their_names(animals: Path) -> None:
    data = open_dataset(animals)
    assert [data.label(i) for i in range(len(data))] == [1, 1, 2]
    assert (data.shape, data.dtype) == ((8, 6, 3), np.uint8)
    for sample, seed in zip(data, [2, 3, 1], strict=True):
        np.testing.assert_array_equal(sample, image(seed))


def test_sub_folders_named_like_the_pipelines_labels_are_those_classes(animals: Path) -> None:
    data = open_dataset(animals, (), ["dog", "ape", "cat"])
    assert [data.label(i) for i in range(len(data))] == [2, 2, 0]
    with pytest.raises(ModelError, match=r"ape does not.*like one of the labels: cat, dog"):
        open_dataset(animals, (), ["cat", "dog"])
    elsewhere = open_dataset(animals, (), ["0", "1", "2"])
    assert [elsewhere.label(i) for i in range(len(elsewhere))] == [1, 1, 2]


@pytest.mark.parametrize("labels", [(), ("zero", "one", "two", "three")])
def test_sub_folders_that_are_numbers_are_these_classes(tmp_path: Path, labels: tuple) -> None:
    for name in ("0", "03", "1"):
        write(tmp_path / "f" / name / "a.png", image(int(name)))
    data = open_dataset(tmp_path / "f", (), labels)
    assert [data.label(i) for i in range(len(data))] == [0, 3, 1]


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["1", "2", "3"], "sub-folder 3 is class 3, counted from 0; the pipeline has 3 labels"),
        (["cat", "dog"], "has 2 sub-folders, none with the name of a label; .* 3 labels"),
        (["1", "dog"], "has 2 sub-folders"),
    ],
)
def test_sub_folders_whose_class_would_be_a_guess_are_refused(
    tmp_path: Path, folders: list[str], words: str
) -> None:
    for name in folders:
        write(tmp_path / "f" / name / "a.png", image(1))
    with pytest.raises(ModelError, match=f"{words}.*Name each like one of the labels: x, y, z"):
        open_dataset(tmp_path / "f", (), ["x", "y", "z"])


def test_images_right_in_the_folder_have_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "f" / "a.png", image(1))
    write(tmp_path / "f" / "b.bmp", image(2, height=9))
    data = open_dataset(tmp_path / "f")
    assert data.labels is None
    assert data.shape == (VARIES, 6, 3)
    assert data.sample_bytes == 9 * 6 * 3


@pytest.mark.parametrize(("labels", "wanted"), [(["3", " 0"], [3, 0]), (["x", "12"], ["x", "12"])])
def test_a_csv_names_files_and_labels(tmp_path: Path, labels: list[str], wanted: list) -> None:
    write(tmp_path / "b.png", image(1))
    write(tmp_path / "sub" / "a.png", image(2))
    rows = "\n".join(f"{n},{y}" for n, y in zip(["b.png", "sub/a.png"], labels, strict=True))
    (tmp_path / "labels.csv").write_text(f"file,label\n{rows}\n")
    data = open_dataset(tmp_path)
    assert [data.label(0), data.label(1)] == wanted
    np.testing.assert_array_equal(list(data)[1], image(2))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "first line must name"),
        ("name,class\na,1\n", "first line must name"),
        ("file,label\na.png\n", "Line 2 lacks"),
        ("file,label\nnone.png,1\n", "none.png cannot be read"),
        ("file,label\nlabels.csv,1\n", "no image that OpenCV knows"),
    ],
)
def test_a_csv_that_cannot_be_used_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ModelError, match=words):
        open_dataset(tmp_path)


def test_images_beside_class_folders_are_refused(animals: Path) -> None:
    write(animals / "stray.png", image(9))
    with pytest.raises(ModelError, match=r"stray\.png.*beside sub-folders"):
        open_dataset(animals)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n cut"])
def test_an_image_that_is_damaged_is_named(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "f" / "a.png", image(1))
    (tmp_path / "f" / "b.png").write_bytes(content)
    with pytest.raises(ModelError, match=r"b\.png cannot be read"):
        open_dataset(tmp_path / "f")


def test_the_same_pixels_are_the_same_samples_wherever_they_come_from(
    tmp_path: Path, animals: Path
) -> None:
    folder = open_dataset(animals)
    np.savez(tmp_path / "d.npz", x=np.stack([image(2), image(3), image(1)]), y=[1, 1, 2])
    archive = open_dataset(tmp_path / "d.npz")
    assert archive.digest == folder.digest
    with pytest.raises(ModelError, match="3 of 3"):
        refuse_overlap(folder, archive)


MODULE = """
import numpy as np
calls = 0

def plain():
    for i in range(5):
        yield np.full((2, 3), i, np.float32)

def labelled():
    yield from ((np.full(3, i), i % 2) for i in range(4))

def listed():
    return [([1.0, 2.0], "a"), ([3.0, 4.0], "b")]

def boxed():
    yield np.zeros(3), (np.array([[0, 0, 1, 1], [2, 2, 3, 3]]), [4, 5])
    yield np.ones(3), (np.zeros((0, 4)), [])

def two_inputs():
    for i in range(3):
        yield {"ids": np.array([i, i]), "mask": np.ones(2, bool)}, i

def other_each_time():
    global calls
    calls += 1
    yield np.full(3, calls)

def partly_labelled():
    yield np.zeros(3), 1
    yield np.ones(3)

def mixed_labels():
    yield np.zeros(3), 1
    yield np.ones(3), "b"

def mixed_types():
    yield np.zeros(3)
    yield np.zeros(3, int)

def failing():
    yield np.zeros(3)
    raise KeyError("frame 2")

def objects():
    yield {"a": object()}

def nan():
    yield np.array([1.0, np.nan])

def nothing():
    return iter(())

def not_iterable():
    return 3

constant = 7
"""


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[[str], str]:
    module = f"made_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{module}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return lambda name: f"{module}:{name}"


def test_a_function_in_the_current_folder_yields_samples(here: Callable[[str], str]) -> None:
    data = open_dataset(here("plain"))
    assert (len(data), data.shape, data.labels) == (5, (2, 3), None)
    for _ in range(2):
        assert [int(sample[0, 0]) for sample in data] == [0, 1, 2, 3, 4]


def test_a_function_may_yield_labels_of_any_form(here: Callable[[str], str]) -> None:
    data = open_dataset(here("labelled"))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0, 1]
    data = open_dataset(here("listed"))
    assert [data.label(0), data.label(1)] == ["a", "b"]
    data = open_dataset(here("boxed"))
    assert data.label(0).classes.tolist() == [4, 5]
    assert data.label(0).boxes.tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert data.label(1).boxes.shape == (0, 4)


def test_a_function_may_yield_an_array_an_input(here: Callable[[str], str]) -> None:
    data = open_dataset(here("two_inputs"))
    assert [array.name for array in data.arrays] == ["ids", "mask"]
    assert [sample["ids"].tolist() for sample in data] == [[0, 0], [1, 1], [2, 2]]


def test_a_function_that_is_not_repeatable_is_found_out(here: Callable[[str], str]) -> None:
    data = open_dataset(here("other_each_time"))
    with pytest.raises(ModelError, match="seed what is random"):
        list(data)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("partly_labelled", "Sample 1 in .* has no label"),
        ("mixed_labels", "not all class numbers, all texts"),
        ("mixed_types", "It is int64, the first is float64"),
        ("failing", r"KeyError: 'frame 2' \(made_.*, line \d+\)"),
        ("objects", "an array of numbers"),
        ("nan", "Sample 0 .* NaN"),
        ("nothing", "no samples"),
        ("not_iterable", "returns .*, not samples one by one"),
        ("constant", "a int, not a function"),
        ("none", "no none in the module"),
    ],
)
def test_what_a_function_does_wrong_is_a_sentence(
    here: Callable[[str], str], name: str, words: str
) -> None:
    with pytest.raises(EdgemlError, match=words):
        open_dataset(here(name))


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no module no_such_data"):
        open_dataset("no_such_data:samples")
    with pytest.raises(ModelError, match="No data file"):
        open_dataset("no such thing:at all")
