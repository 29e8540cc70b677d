"""Where accuracy is lost, told apart: by what the model is fed, by the runtime, by quantization.

Each is a comparison of its own on the same samples, so that none is blamed for another: the
float model fed in other ways, the float model on another runtime, and the quantized file on
the runtime on which the float model stands beside it.
"""

from collections.abc import Mapping, Sequence

from cloud_sync.evidence import GateResult
from converters.candidates import Candidate
from converters.result import Loss


def losses_of(
    preprocessing: GateResult,
    conversions: Mapping[str, GateResult],
    candidates: Sequence[Candidate],
) -> tuple[Loss, ...]:
    """Every comparison that a conversion made, in the order in which accuracy is lost.

    Args:
        preprocessing: the gate on how the model is fed.
        conversions: by runtime, the gate on the float model there.
        candidates: all that were decided on.
    """
    return (
        Loss(kind="pre-processing", gate=preprocessing),
        *(Loss(kind="conversion", runtime=r, gate=gate) for r, gate in conversions.items()),
        *(
            Loss(
                kind="quantization",
                target=candidate.target.name,
                runtime=candidate.lane.runtime,
                move=candidate.move,
                gate=candidate.gates[0],
            )
            for candidate in candidates
            if not candidate.is_float
        ),
    )
