"""The golden set is spread over the data and small enough to travel."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.dataset import open_dataset
from converters.executor import LocalExecutor, open_remote
from converters.golden import golden_set, recorded_outputs, spread
from converters.model import load_model
from converters.task import DirectTask
from hardware.probes import probe


@given(st.lists(st.integers(0, 10_000), min_size=1, unique=True).map(sorted), st.integers(1, 40))
def test_spread_takes_distinct_indices_in_order(indices: list[int], count: int) -> None:
    taken = spread(indices, count)
    assert len(taken) == min(count, len(indices))
    assert taken == sorted(set(taken))
    assert set(taken) <= set(indices)


def test_spread_reaches_from_one_end_to_the_other() -> None:
    taken = spread(range(400), 32)
    assert taken[0] == 0
    assert taken[-1] > 380


def test_only_samples_in_which_something_was_found_are_golden(
    convnet: Path, quarters_data: tuple[Path, Path]
) -> None:
    evaluation = open_dataset(quarters_data[1])
    found = np.zeros(len(evaluation), bool)
    found[[3, 8, 300]] = True
    with closing(open_remote(LocalExecutor(), "onnxruntime", convnet)) as session:
        golden = golden_set(session, DirectTask(load_model(convnet)), evaluation, found)
    assert evaluation.labels is not None
    assert golden.labels is not None
    assert golden.labels.tolist() == evaluation.labels[[3, 8, 300]].tolist()
    np.testing.assert_array_equal(golden.inputs[2], list(evaluation)[300])
    assert golden.outputs[0].shape == (3, 4)


def test_another_machine_may_differ_by_a_stated_share_of_the_largest_output(
    convnet: Path, quarters_data: tuple[Path, Path]
) -> None:
    evaluation, task = open_dataset(quarters_data[1]), DirectTask(load_model(convnet))
    with closing(open_remote(LocalExecutor(), "onnxruntime", convnet)) as session:
        golden = golden_set(session, task, evaluation, np.ones(len(evaluation), bool))
        largest = float(np.abs(golden.outputs[0]).max())
        for precision, share in (("float32", 1e-3), ("int8", 0.05)):
            made = recorded_outputs(session, task, golden, precision=precision, host=probe())
            assert made.tolerance == 0
            assert made.other_tolerance == pytest.approx(share * largest)
