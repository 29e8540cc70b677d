"""The golden set of a release, and what each artifact answered to it.

About thirty evaluation samples, evenly spread over the data, with their labels and the float
model's outputs; devices replay them and compare with the recorded outputs of their variant.
"""

from collections.abc import Sequence

import numpy as np

from cloud_sync.golden import GoldenSet, Recorded
from converters.dataset import Dataset
from converters.plan import RUNTIME
from converters.recipe import FLOAT, INT8, Precision
from converters.task import Task
from hardware.capabilities import Capabilities
from hardware.probes import instruction_set
from hardware.runtimes.interface import Session

_SAMPLES = 32
_MOST_BYTES = 16 << 20

# What another version or instruction set may change, as a share of the largest output: the
# order of float sums, and for int8 a rounding that falls the other way and moves a few steps.
_OTHER_TOLERANCE = {FLOAT: 1e-3, INT8: 0.05}


def golden_set(session: Session, task: Task, evaluation: Dataset, found: np.ndarray) -> GoldenSet:
    """Choose samples in which there is something to infer, and run the float model on them."""
    wanted = set(spread(np.flatnonzero(found), _affordable(evaluation)))
    chosen = [sample for index, sample in enumerate(evaluation) if index in wanted]
    labels = None if evaluation.labels is None else evaluation.labels[sorted(wanted)]
    return GoldenSet(
        inputs=np.stack(chosen), labels=labels, outputs=_run(session, task, np.stack(chosen))
    )


def recorded_outputs(
    session: Session, task: Task, golden: GoldenSet, *, precision: Precision, host: Capabilities
) -> Recorded:
    """Run an artifact on the golden set; on such a host its outputs are bit-equal again."""
    outputs = _run(session, task, golden.inputs)
    largest = max(float(np.abs(output).max()) for output in golden.outputs)
    version = next(r.version for r in host.runtimes if r.name == RUNTIME)
    return Recorded(
        runtime=RUNTIME,
        runtime_version=version,
        instruction_set=instruction_set(host),
        tolerance=0.0,
        other_tolerance=_OTHER_TOLERANCE[precision] * largest,
        outputs=outputs,
    )


def spread(indices: Sequence[int] | np.ndarray, count: int) -> list[int]:
    """At most `count` of the indices, evenly spread, the first among them."""
    step = max(1.0, len(indices) / max(count, 1))
    positions = (int(i * step) for i in range(min(count, len(indices))))
    return [int(indices[position]) for position in positions]


def _affordable(evaluation: Dataset) -> int:
    sample = evaluation.dtype.itemsize * int(np.prod(evaluation.shape, dtype=np.int64))
    return max(1, min(_SAMPLES, _MOST_BYTES // sample))


def _run(session: Session, task: Task, inputs: np.ndarray) -> tuple[np.ndarray, ...]:
    rows: list[list[np.ndarray]] = []
    for sample in inputs:
        tensors = task.prepare(sample)
        assert tensors is not None, "only samples that reach the model are golden"
        rows.append([np.array(output) for output in session.run(tensors)])
    return tuple(np.concatenate(column) for column in zip(*rows, strict=True))
