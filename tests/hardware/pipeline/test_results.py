"""A result is its own: what a session writes into its outputs afterwards does not change it."""

from typing import Any

import numpy as np
import pytest

from hardware.pipeline import PipelineRunner, parse
from hardware.pipeline.postprocessors import OURS
from hardware.runtimes import TensorSpec

SIDE = 64
HEAD = f"""
version = 1
task = "{{task}}"
{{keys}}
[[pre]]
op = "resize"
width = {SIDE}
height = {SIDE}
[[pre]]
op = "layout"
to = "NHWC"
[[post]]
op = "{{op}}"
"""
ABC = 'labels = ["a", "b", "c"]'
INPUT = (TensorSpec(name="image", shape=(1, SIDE, SIDE, 3), dtype="uint8"),)
FRAME = np.zeros((48, 48, 3), np.uint8)
YUNET = [(64, 1), (16, 1), (4, 1)] * 2 + [(64, 4), (16, 4), (4, 4)] + [(64, 10), (16, 10), (4, 10)]

# For each post-processor: its task, the pipeline's keys, its own keys, and outputs to be read.
READ: dict[str, tuple[str, str, str, list[Any]]] = {
    "classify": ("classification", ABC, "", [[[0.1, 0.7, 0.2]]]),
    "yolo": ("detection", ABC, 'head = "end_to_end"\n', [[[[10.0, 10.0, 40.0, 40.0, 0.9, 1.0]]]]),
    "ssd": (
        "detection",
        ABC,
        "boxes = 0\nscores = 1\nclasses = 2\n",
        [[[[0.1, 0.1, 0.6, 0.6]]], [[0.9]], [[1.0]]],
    ),
    "yunet": ("detection", ABC.replace(', "b", "c"', ""), "", [np.ones((1, *s)) for s in YUNET]),
    "ctc": ("text", "", 'charset = "abc"\n', [np.eye(4)[[1, 0, 2, 3]][np.newaxis]]),
    "keyword": ("keyword", ABC, "", [[[0.1, 0.7, 0.2]]]),
    "anomaly": ("anomaly", "", "", [np.full((1, SIDE, SIDE, 3), 0.7)]),
    "embedding": ("embedding", "", "", [[[3.0, 4.0, 0.0]]]),
    "raw": ("raw", "", "", [[[1.0, 2.0]]]),
}


def runner(op: str) -> PipelineRunner:
    task, keys, own, _ = READ[op]
    return parse((HEAD.format(task=task, keys=keys, op=op) + own).encode()).runner(INPUT)


def test_every_post_processor_is_looked_at() -> None:
    assert set(READ) == set(OURS)


@pytest.mark.parametrize("op", READ)
def test_a_result_outlives_the_outputs_that_it_was_read_from(op: str) -> None:
    made = runner(op)
    outputs = [np.array(values, np.float32) for values in READ[op][3]]
    assert made.prepare(made.crop(FRAME)) is not None
    found = made.read(outputs)
    before = found.line()
    for output in outputs:
        output[:] = -77.0
    assert found.line() == before
    held = [value for value in vars_of(found) if isinstance(value, np.ndarray)]
    assert not any(np.shares_memory(value, output) for value in held for output in outputs)


def vars_of(result: Any) -> list[Any]:
    values = [getattr(result, name) for name in result.__struct_fields__]
    return [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
