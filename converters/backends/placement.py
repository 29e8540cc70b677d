"""The gate on placement: how much of a model the accelerator runs, as its compiler says."""

from cloud_sync.evidence import GateResult, Placement, Verdict

NAME = "placement"
_NAMED = 5


def placement_gate(placement: Placement, min_offload: float) -> GateResult:
    """Judge the share of operators and of multiply-accumulates that the accelerator runs.

    Args:
        placement: from the compiler's own report.
        min_offload: the least that both shares may be (0.95).
    """
    passes = placement.share >= min_offload
    said = (
        f"{placement.offloaded} of {placement.operators} operators and "
        f"{100 * placement.mac_share:.1f} % of the multiply-accumulates run on the accelerator, "
        f"{100 * min_offload:g} % of both is asked for"
    )
    return GateResult(
        name=NAME,
        result=Verdict.PASS if passes else Verdict.FAIL,
        value=placement.share,
        bound=min_offload,
        n=placement.operators,
        unit="share",
        reason=f"{said}{_left(placement)}.",
    )


def _left(placement: Placement) -> str:
    if not placement.left:
        return ""
    told = [
        f"{node.node} ({node.operator})" + (f": {node.reason.rstrip('.')}" if node.reason else "")
        for node in placement.left[:_NAMED]
    ]
    more = len(placement.left) - len(told)
    return f"; on the CPU: {'; '.join(told)}{f'; and {more} more' if more else ''}"
