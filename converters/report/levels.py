"""Levels of verification as a reader understands them."""

from cloud_sync.evidence import Verification
from converters.candidates import Candidate

_VERIFIED = {
    Verification.DEVICE_EXECUTED: "run on the device",
    Verification.ARTIFACT_EXECUTED: "this file was run, on this kind of CPU",
    Verification.ARTIFACT_EXECUTED_EMULATED: "this file was run, on an emulated CPU of this kind",
    Verification.CPU_PROXY: "this file was run, on a CPU that has more instructions",
}
_COMPILED_VERIFIED = {
    Verification.ARTIFACT_EXECUTED: "this file was run here, not on the device",
    Verification.ARTIFACT_EXECUTED_EMULATED: "this file was run, on the vendor's simulator",
    Verification.RTL_SIMULATED: "the gateware was simulated, nothing ran on silicon",
    Verification.GRAPH_SIMULATED: "the graph was simulated before it was written to this file",
    Verification.PRE_COMPILE_EXECUTED: "the file that was compiled was run, not this one",
    Verification.ESTIMATED: "nothing was run",
}


def verified(candidate: Candidate) -> str:
    """What a level of verification means for this candidate, in words."""
    said = _VERIFIED if candidate.compiled is None else _COMPILED_VERIFIED
    return said.get(candidate.verification, "")
