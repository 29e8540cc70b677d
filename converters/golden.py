"""The golden set of a release, and what each artifact answered to it.

About thirty evaluation samples, evenly spread over the data, with their labels and the float
model's outputs; devices replay them and compare with the recorded outputs of their variant.
"""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cloud_sync.golden import GoldenSet, Recorded, joined
from converters.backends.interface import Execution, Offer, Tensors
from converters.dataset import Dataset
from converters.executor import RemoteSession
from converters.recipe import FLOAT, FLOAT16, INT4, INT8, Precision
from converters.task import Task
from hardware.capabilities import Capabilities, RuntimeInfo
from hardware.probes import instruction_set
from hardware.runtimes.interface import Session

_SAMPLES = 32
_MOST_BYTES = 16 << 20

# What another version or instruction set may change, as a share of the largest output: the
# order of float sums, and for int8 a rounding that falls the other way and moves a few steps.
_OTHER_TOLERANCE = {FLOAT: 1e-3, FLOAT16: 0.01, INT8: 0.05, INT4: 0.05}

# onnxruntime answers the same bits on the same machine; others may choose other kernels.
_SAME_TOLERANCE = {"onnxruntime": 0.0}
_ANY_TOLERANCE = 1e-3


def golden_set(
    session: Session, task: Task, evaluation: Dataset, found: Sequence[bool]
) -> GoldenSet:
    """Choose samples in which there is something to infer, and run the float model on them."""
    wanted = golden_indices(task, evaluation, found)
    chosen = [task.arrays(sample) for index, sample in enumerate(evaluation) if index in wanted]
    labels = [evaluation.label(index) for index in sorted(wanted)]
    are_classes = evaluation.annotation is not None and evaluation.annotation.are_class_numbers
    inputs, *more = (np.stack(arrays) for arrays in zip(*chosen, strict=True))
    return GoldenSet(
        inputs=inputs,
        labels=np.array(labels, np.int64) if are_classes else None,
        outputs=_run(session.run, task, chosen),
        more_inputs=tuple(more),
    )


def golden_indices(task: Task, evaluation: Dataset, found: Sequence[bool]) -> set[int]:
    """Which evaluation samples the golden set consists of, evenly spread over the data.

    Args:
        task: what makes arrays of a sample.
        evaluation: the data.
        found: for each sample, whether there is something to infer in it.
    """
    shapes: list[tuple[int, ...]] | None = None
    alike = []  # a set is one array, so samples of another shape than the first are left out
    for index, sample in enumerate(evaluation):
        if found[index]:
            here = [np.shape(array) for array in task.arrays(sample)]
            shapes = shapes or here
            alike += [index] if here == shapes else []
    return set(spread(alike, _affordable(evaluation)))


def recorded_outputs(
    session: RemoteSession,
    task: Task,
    golden: GoldenSet,
    *,
    precision: Precision,
    host: Capabilities,
    is_emulated: bool = False,
) -> Recorded:
    """Run an artifact on the golden set; on such a host its outputs are the same again.

    An emulator may differ from its processor in a last bit, so that a tolerance is stated.
    """
    same = _SAME_TOLERANCE.get(session.info.name, _ANY_TOLERANCE)
    return recorded(
        session.info,
        _run(session.run, task, golden.samples()),
        golden,
        precision=precision,
        executed_on=instruction_set(host),
        tolerance=_ANY_TOLERANCE if is_emulated else same,
    )


def compiled_outputs(
    execution: Execution, task: Task, golden: GoldenSet, offer: Offer, host: Capabilities
) -> Recorded:
    """What answers in a compiled artifact's place, on the golden set."""
    return recorded(
        execution.info,
        _run(lambda inputs: execution.run_each([inputs])[0], task, golden.samples()),
        golden,
        precision=offer.artifact.weights,
        executed_on=offer.executed_on or instruction_set(host),
        tolerance=offer.tolerance,
        elsewhere=offer.tolerance if offer.same_everywhere else None,
    )


def recorded(
    info: RuntimeInfo,
    outputs: tuple[np.ndarray, ...],
    golden: GoldenSet,
    *,
    precision: Precision,
    executed_on: str,
    tolerance: float,
    elsewhere: float | None = None,
) -> Recorded:
    """A recording; `tolerance` is a share of the largest output, `elsewhere` that elsewhere."""
    largest = max(float(np.abs(output).max()) for output in golden.outputs)
    other = _OTHER_TOLERANCE[precision] if elsewhere is None else elsewhere
    return Recorded(
        runtime=info.name,
        runtime_version=info.version,
        instruction_set=executed_on,
        tolerance=tolerance * largest,
        other_tolerance=other * largest,
        outputs=outputs,
    )


def spread(indices: Sequence[int] | np.ndarray, count: int) -> list[int]:
    """At most `count` of the indices, evenly spread, the first among them."""
    step = max(1.0, len(indices) / max(count, 1))
    positions = (int(i * step) for i in range(min(count, len(indices))))
    return [int(indices[position]) for position in positions]


def _affordable(evaluation: Dataset) -> int:
    return max(1, min(_SAMPLES, _MOST_BYTES // max(1, evaluation.sample_bytes)))


def _run(
    run: Callable[[Tensors], Tensors], task: Task, samples: Iterable[tuple[np.ndarray, ...]]
) -> tuple[np.ndarray, ...]:
    rows: list[list[np.ndarray]] = []
    for arrays in samples:
        tensors = task.prepare(arrays if len(arrays) > 1 else arrays[0])
        assert tensors is not None, "only samples that reach the model are golden"
        rows.append([np.array(output) for output in run(tensors)])
    return joined(rows)
