"""A pipeline's TOML is read strictly, and every mistake is named where it stands."""

import contextlib
import datetime as dt
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import ModelError
from hardware.pipeline import Pipeline, Region, parse
from hardware.pipeline.definition import MAX_PIPELINE_BYTES
from hardware.pipeline.postprocessors import OURS
from tests.hardware.pipeline.samples import GOOD, INPUT

HEAD = b'version = 1\nlabels = ["a"]\n'


def refusal(data: bytes) -> str:
    with pytest.raises(ModelError) as caught:
        parse(data)
    return str(caught.value)


def test_a_pipeline_is_read_back_as_written() -> None:
    pipeline = parse(GOOD)
    assert pipeline.labels == ("a", "b", "c")
    assert pipeline.region == Region(x=0.25, y=0.5, width=0.5, height=0.5)
    assert len(pipeline.pre) == 4
    assert pipeline.site.allow == ("region", "threshold")


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        (b"width = 4", b"widht = 4", 15, "`widht`"),
        (b'op = "resize"', b'op = "rezise"', 14, "rezise"),
        (b'op = "resize"', b'op = "re size"', 14, "re size"),
        (b"value = 0.6", b"value = 1.6", 32, "value"),
        (b"k = 2", b'k = "two"', 29, "k"),
        (b"x = 0.25", b"x = -1.0", 6, "region.x"),
        (b"x = 0.25", b"x = nan", 6, "region.x"),
        (b'allow = ["region"', b'allow = ["model"', 34, "allow"),
        (b"version = 1", b"version = 2", 2, "version"),
        (b"version = 1", b'version = 1\n"foo-bar" = 3', 3, "foo-bar"),
        (b'labels = ["a"', b'labels = [1, "a"', 4, "labels[0]"),
        (b"factor = 0.00392156862745098", b"factor = nan", 19, "factor"),
        (b"factor = 0.00392156862745098", b"factor = 1e300", 19, "factor"),
        (b"std = [0.25]", b"std = [0.0]", 21, "std"),
        (b"std = [0.25]", b"std = []", 17, "std has 0 values"),
        (b"mean = [0.5]", b"mean = [0.5, 0.5]", 17, "mean has 2 values"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: bytes, new: bytes, line: int, word: str) -> None:
    assert GOOD.count(old) >= 1
    sentence = refusal(GOOD.replace(old, new, 1))
    assert f"Line {line}:" in sentence
    assert word in sentence


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (b"size = 1", "version, task, input, labels, region, pre, post, site"),
        (b"[region]\nleft = 0.1", "x, y, width, height"),
        (b'[[pre]]\nop = "resize"\nsize = 4\nwidth = 4\nheight = 4', "op, width, height"),
        (b'[[pre]]\nop = "softmax"', "locate, colour, resize, letterbox, mfcc, scale, layout"),
        (
            b'[[post]]\nop = "resize"',
            ", ".join(("softmax, top_k, threshold", *OURS)),
        ),
        (b'[[post]]\nop = "yolo"\nheads = "v8"', "op, head, iou, max_boxes"),
    ],
)
def test_what_is_unknown_is_answered_with_what_is_known(text: bytes, known: str) -> None:
    assert f"Known are: {known}." in refusal(HEAD + text)


@pytest.mark.parametrize(
    ("steps", "line", "word"),
    [
        ((b'pre]]\nop = "layout"\nto = "NHW"', b'pre]]\nop = "scale"'), 7, "behind layout"),
        ((b'pre]]\nop = "scale"', b'pre]]\nop = "locate"'), 6, "behind scale"),
        ((b'pre]]\nop = "locate"', b'pre]]\nop = "locate"'), 6, "twice"),
        ((b'post]]\nop = "softmax"', b'post]]\nop = "softmax"'), 6, "twice"),
        ((b'post]]\nop = "top_k"', b'post]]\nop = "softmax"'), 6, "must be the first"),
    ],
)
def test_a_step_in_the_wrong_place_is_refused(
    steps: tuple[bytes, ...], line: int, word: str
) -> None:
    sentence = refusal(HEAD + b"\n".join(b"[[" + step for step in steps))
    assert f"Line {line}:" in sentence
    assert word in sentence


@pytest.mark.parametrize(
    "data", [b"[[pre\n", b"\xff", b"version = " + b"1" * 5000, b"a = " + b"[" * 5000]
)
def test_what_is_no_toml_is_said_so(data: bytes) -> None:
    assert "not valid TOML" in refusal(data)


def test_a_pipeline_without_end_is_refused_unread() -> None:
    assert f"{MAX_PIPELINE_BYTES} are allowed" in refusal(b"#" * (MAX_PIPELINE_BYTES + 1))


def test_a_site_sets_only_what_the_release_allows() -> None:
    pipeline = parse(GOOD)
    assert pipeline.site_parameters({"threshold": 0.9}).threshold == 0.9
    with pytest.raises(ModelError, match="may not set labels"):
        pipeline.site_parameters({"labels": []})
    with pytest.raises(ModelError, match="not valid"):
        pipeline.site_parameters({"threshold": 7})
    with pytest.raises(ModelError, match="not valid"):
        pipeline.site_parameters({"region": {"left": 0.5}})


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_a_model_error(data: bytes) -> None:
    with contextlib.suppress(ModelError):
        parse(data)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_no_damage_of_a_good_one_raises_anything_but_a_model_error(at: int, byte: int) -> None:
    damaged = bytearray(GOOD)
    damaged[at] = byte
    with contextlib.suppress(ModelError):
        assert isinstance(parse(bytes(damaged)), Pipeline)


def toml(value: Any) -> str:
    """A value as inline TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return '"' + "".join(f"\\U{ord(letter):08X}" for letter in value) + '"'
        case dict():
            return "{" + ", ".join(f"{toml(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return str(value)


WORDS = st.sampled_from(
    [*sorted(set(re.findall(r"\w+", GOOD.decode()))), "locate", "polarity", "dark", "margin", "NHW"]
)
TEXTS = WORDS | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SCALARS = (
    st.sampled_from([0, 1, 2, 0.5, -1, 10**400, 1e300, 1e-300])
    | st.booleans()
    | st.floats()
    | TEXTS
    | st.dates(dt.date(1, 1, 1))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=6))
def test_no_toml_raises_anything_but_a_model_error(tree: dict[str, Any]) -> None:
    text = "\n".join(f"{toml(name)} = {toml(value)}" for name, value in tree.items())
    with contextlib.suppress(ModelError):
        parse(text.encode())


NUMBERS = st.sampled_from([0, 1, 2, 3, 0.5, 1.0, -1.0, 1e6, 1e-6, 8])
STEPS = st.one_of(
    st.fixed_dictionaries({"op": st.just("locate"), "margin": NUMBERS, "min_area": NUMBERS}),
    st.fixed_dictionaries({"op": st.just("colour"), "to": st.sampled_from(["gray", "rgb", "bgr"])}),
    st.fixed_dictionaries({"op": st.just("resize"), "width": NUMBERS, "height": NUMBERS}),
    st.fixed_dictionaries(
        {
            "op": st.just("scale"),
            "factor": NUMBERS,
            "mean": st.lists(NUMBERS, min_size=1, max_size=3),
            "std": st.lists(NUMBERS, min_size=1, max_size=3),
        }
    ),
    st.fixed_dictionaries(
        {"op": st.just("layout"), "to": st.sampled_from(["NCHW", "NHWC", "NHW"])}
    ),
)


@given(
    st.lists(STEPS, max_size=5),
    st.sampled_from([(1, 1), (6, 5), (9, 9, 1), (12, 7, 3)]),
    st.integers(0, 2**32 - 1),
)
def test_what_was_parsed_runs_or_says_in_a_model_error_why_not(
    pre: list[dict[str, Any]], shape: tuple[int, ...], seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    with contextlib.suppress(ModelError):
        parse(HEAD + f"pre = {toml(pre)}".encode()).runner(INPUT).prepare(image)
