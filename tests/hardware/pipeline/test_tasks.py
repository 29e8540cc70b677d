"""What is read from outputs: text, words over time, deviations, vectors, or nothing at all."""

import itertools
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeml.errors import DeviceError, ModelError
from hardware.pipeline import (
    Anomaly,
    Embedding,
    Keyword,
    PipelineRunner,
    Raw,
    Text,
    parse,
    with_labels,
)
from hardware.pipeline.postprocessors import OURS
from hardware.runtimes import TensorSpec
from tests.hardware.plugins import install

VECTOR = (TensorSpec(name="features", shape=("N", 4), dtype="float32"),)
TENSOR = 'version = 1\ninput = "tensor"\n'


def runner(text: str, site: dict[str, Any] | None = None) -> PipelineRunner:
    made = parse((TENSOR + text).encode()).runner(VECTOR, site)
    assert made.prepare(np.zeros(4, np.float32)) is not None
    return made


# Text.

CTC = 'task = "text"\n[[post]]\nop = "ctc"\n'


def text_of(path: list[int], post: str, classes: int, axes: str = "NTC") -> Text:
    scores = np.full((len(path), classes), 0.01, np.float32)
    scores[np.arange(len(path)), path] = 0.9
    found = runner(post).read([scores[np.newaxis] if axes == "NTC" else scores[:, np.newaxis]])
    assert isinstance(found, Text)
    return found


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.sampled_from(["first", "last"]))
def test_ctc_joins_repeats_and_leaves_out_blanks(path: list[int], blank: str) -> None:
    post = CTC + f'charset = "abc"\nblank = "{blank}"\n'
    none = 0 if blank == "first" else 3
    letters = {0: "", 1: "a", 2: "b", 3: "c"} if blank == "first" else dict(enumerate("abc"))
    expected = "".join(letters[key] for key, _ in itertools.groupby(path) if key != none)
    found = text_of(path, post, 4)
    assert found.text == expected
    assert found.confident == bool(expected)
    assert found.confidence == pytest.approx(0.9 if expected else 0.0, abs=1e-6)


def test_the_characters_may_hold_the_blank_and_steps_may_come_first() -> None:
    listed = 'labels = ["", "ab", "c"]\n' + CTC + 'axes = "TNC"\n'
    assert text_of([1, 1, 0, 1, 2], listed, 3, "TNC").text == "ababc"
    assert text_of([1, 0, 3], 'labels = ["x", "y", "z"]\n' + CTC, 4).text == "xz"


def test_a_line_of_text_has_a_line_in_the_results() -> None:
    found = text_of([1, 2], CTC + 'charset = "abc"\n', 4)
    assert found.line() == {"label": "text", "confidence": 0.9, "confident": True, "text": "ab"}


def test_labels_come_from_a_file_beside_the_pipeline(tmp_path: Path) -> None:
    labels = ["", "'", '"', "疗", "\\", " "]
    (tmp_path / "labels.txt").write_text("\n".join(labels), encoding="utf-8")
    text = TENSOR + '# characters\nlabels_file = "labels.txt"\n' + CTC
    whole = with_labels(text.encode(), tmp_path)
    assert parse(whole).labels == tuple(labels)
    assert with_labels(whole, tmp_path) == whole
    with pytest.raises(ModelError, match=r"labels in .* cannot be read"):
        with_labels(text.replace("labels.txt", "no.txt").encode(), tmp_path)


# Words.

WORDS = (
    'task = "keyword"\nlabels = ["yes", "no", "silence"]\n[[post]]\nop = "keyword"\n'
    'window_s = 0.5\nrefractory_s = 1.0\nignore = ["silence"]\n'
    '[[post]]\nop = "threshold"\nvalue = 0.6\n'
)
YES, SILENCE = [[0.9, 0.05, 0.05]], [[0.05, 0.05, 0.9]]


def hear(made: PipelineRunner, scores: Any, at: float, source: str = "a") -> Keyword:
    found = made.read([np.array(scores, np.float32)], source=source, at=at)
    assert isinstance(found, Keyword)
    return found


def test_a_word_is_spotted_once_for_each_time_it_is_said() -> None:
    made = runner(WORDS)
    said = [(0.0, SILENCE), (0.25, YES), (0.5, YES), (0.75, YES), (1.0, SILENCE), (1.25, SILENCE)]
    said += [(1.5, SILENCE), (1.75, YES), (2.0, YES), (2.25, YES)]
    spotted = [at for at, scores in said if hear(made, scores, at).spotted]
    # The first second after silence is too little of a window; the second time is another word.
    assert spotted == [0.5, 2.0]


def test_silence_is_never_spotted() -> None:
    made = runner(WORDS)
    assert not any(hear(made, SILENCE, at / 4).spotted for at in range(40))


def test_each_source_has_its_own_window_and_a_clock_that_goes_back_begins_anew() -> None:
    made = runner(WORDS)
    assert hear(made, YES, 10.0, "a").spotted
    assert hear(made, YES, 10.0, "b").spotted
    assert not hear(made, YES, 10.5, "a").spotted
    assert hear(made, YES, 1.0, "a").spotted


@given(
    st.lists(
        st.tuples(st.floats(0, 0.4), st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)),
        min_size=1,
        max_size=25,
    )
)
def test_the_confidence_is_the_mean_of_the_window(
    heard: list[tuple[float, list[float]]],
) -> None:
    made = runner(WORDS)
    at, before = 0.0, []
    last = -10.0
    for pause, scores in heard:
        at += pause
        before.append((at, scores))
        window = [values for when, values in before if at - when <= 0.5]
        found = hear(made, [scores], at)
        mean = np.mean(np.array(window, np.float32), axis=0)
        assert found.confidence == pytest.approx(float(mean.max()), abs=1e-5)
        if found.spotted:
            assert at - last >= 1.0
            last = at


def test_more_than_fits_is_still_a_window() -> None:
    made = runner(WORDS)
    for index in range(2500):
        found = hear(made, YES if index % 2 else SILENCE, index * 1e-5)
    assert found.confidence == pytest.approx(0.475, abs=1e-3)


# Deviations.

ODD = 'task = "anomaly"\n[[post]]\nop = "anomaly"\n[[post]]\nop = "threshold"\nvalue = 2.5\n'


def test_an_anomaly_is_the_squared_error_of_what_was_made_of_the_input() -> None:
    made = runner(ODD + '[site]\nallow = ["threshold"]\n', {"threshold": 13})
    made.prepare(np.array([1, 2, 3, 4], np.float32))
    found = made.read([np.array([[1, 2, 3, 0]], np.float32)])
    assert found == Anomaly(score=4.0, anomalous=False)
    far = made.read([np.array([[1, 2, -4, 0]], np.float32)])
    assert far == Anomaly(score=(49 + 16) / 4, anomalous=True)
    assert far.line() == {"label": "anomalous", "score": 16.25}


def test_a_score_that_the_model_makes_itself_is_taken() -> None:
    made = runner(ODD.replace('op = "anomaly"', 'op = "anomaly"\nscore = "output"'))
    assert made.read([np.array([[2.5]], np.float32)]) == Anomaly(score=2.5, anomalous=True)
    with pytest.raises(ModelError, match="answers 2"):
        made.read([np.zeros((1, 2), np.float32)])


# Vectors.

FACES = (
    'task = "embedding"\n[[post]]\nop = "embedding"\n'
    'gallery = [{label = "ann", vector = [2, 0, 0]}, {label = "bob", vector = [0, 1, 1]}]\n'
    '[[post]]\nop = "threshold"\nvalue = 0.8\n'
)


@given(st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3))
def test_an_embedding_has_length_one_and_names_the_nearest(values: list[float]) -> None:
    assume(np.linalg.norm(values) > 1e-6)  # what is shorter has no direction to speak of
    found = runner(FACES).read([np.array([values], np.float32)])
    assert isinstance(found, Embedding)
    assert np.linalg.norm(found.vector) == pytest.approx(1, abs=1e-5)
    x, y, z = np.array(values) / np.linalg.norm(values)
    near = {"ann": x, "bob": (y + z) / 2**0.5}
    best = max(near.values())
    assert found.confidence == pytest.approx(best, abs=1e-4)
    if abs(best - 0.8) > 1e-3 and abs(near["ann"] - near["bob"]) > 1e-3:
        assert found.label == (max(near, key=near.__getitem__) if best > 0.8 else "")


def test_without_a_gallery_there_is_only_the_vector() -> None:
    found = runner('task = "embedding"\n[[post]]\nop = "embedding"\n').read(
        [np.array([[3, 4]], np.float32)]
    )
    assert found.line()["vector"] == [0.6, 0.8]
    assert found.label == ""


# Raw.


def test_raw_outputs_are_copies() -> None:
    outputs = [np.arange(3, dtype=np.int8), np.zeros((2, 100), np.float32)]
    found = runner('task = "raw"\n[[post]]\nop = "raw"\n').read(outputs)
    outputs[0][:] = 9
    assert isinstance(found, Raw)
    assert found.line() == {
        "outputs": [
            {"dtype": "int8", "shape": [3], "values": [0, 1, 2]},
            {"dtype": "float32", "shape": [2, 100]},
        ]
    }


# Pipelines that cannot be.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('task = "detection"\nlabels = ["a"]', "needs a post-processor: ssd, yolo, yunet"),
        ('task = "poetry"', "no post-processor is named for the task 'poetry'"),
        ('labels = ["a"]\n[[post]]\nop = "raw"', "raw makes a raw, the task is 'classification'"),
        ("", "a classification needs labels"),
        ('task = "text"\n[[post]]\nop = "ctc"', "ctc needs its characters once"),
        (
            'task = "text"\n[[post]]\nop = "ctc"\ncharset = "a"\n[[post]]\nop = "top_k"',
            "no use for top_k",
        ),
        (
            'task = "raw"\n[[post]]\nop = "raw"\n[[post]]\nop = "anomaly"',
            "anomaly is a second post-processor",
        ),
        ('labels = ["a"]\n[[post]]\nop = "threshold"\nvalue = 1.5', "value is 1.5"),
        (WORDS.replace('["silence"]', '["noise"]'), "'noise' is to be ignored"),
        (FACES.replace("[2, 0, 0]", "[2, 0]"), "different sizes"),
        (FACES.replace("[2, 0, 0]", "[0, 0, 0]"), "length zero"),
        ('labels = ["a"]\n[region]\nx = 0.5', "a region is of an image, the input is tensor"),
        ('labels = ["a"]\n[[pre]]\nop = "locate"', "locate is for images"),
        ('labels = ["a"]\n[[pre]]\nop = "mfcc"', "mfcc must be the first step, of audio"),
    ],
)
def test_what_does_not_go_together_is_refused_with_its_reason(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        parse((TENSOR + text).encode())


def test_a_site_may_set_an_anomaly_above_one_but_no_probability() -> None:
    parse((TENSOR + ODD + '[site]\nallow = ["threshold"]').encode()).site_parameters(
        {"threshold": 77.0}
    )
    with pytest.raises(ModelError, match="a score is at most 1"):
        parse((TENSOR + WORDS + '[site]\nallow = ["threshold"]').encode()).site_parameters(
            {"threshold": 1.5}
        )


# Plug-ins.

PLUGIN = """
from typing import ClassVar
from hardware.pipeline.postprocessors import PostProcessor
from hardware.pipeline.results import Anomaly
class make(PostProcessor, frozen=True, kw_only=True, tag="count"):
    task: ClassVar[str] = "counting"
    above: float = 0.5
    def reader(self, settings):
        def read(outputs, seen):
            return Anomaly(score=float((outputs[0] > self.above).sum()), anomalous=False)
        return read
"""


def test_a_plug_in_brings_a_post_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "edgeml.postprocessors", "count", PLUGIN)
    install(tmp_path, "edgeml.postprocessors", "broken", "raise RuntimeError('no licence')")
    install(tmp_path, "edgeml.postprocessors", "other", "make = int")
    monkeypatch.syspath_prepend(tmp_path)
    text = 'task = "counting"\n[[post]]\nop = "count"\nabove = 2.0\n'
    assert runner(text).read([np.arange(5)]).confidence == 2.0
    with pytest.raises(ModelError, match=r"Line 6: .*Known are: op, above"):
        runner(text.replace("above", "below"))
    for name, why in (("broken", "no licence"), ("other", "")):
        with pytest.raises(DeviceError, match=rf"plug-in {name} cannot be loaded.*{why}"):
            runner(text.replace("count", name))


def test_our_post_processors_are_registered_as_a_plug_in_would_be() -> None:
    project = Path(__file__).resolve().parents[3] / "pyproject.toml"
    named = tomllib.loads(project.read_text())["project"]["entry-points"]
    ours = {name: f"{kind.__module__}:{kind.__name__}" for name, kind in OURS.items()}
    assert named["edgeml.postprocessors"] == ours
