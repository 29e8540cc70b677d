"""Errors that every runtime words alike."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from edgeml.errors import DeviceError, ModelError
from hardware.runtimes.interface import TensorSpec


def fits(specs: Sequence[TensorSpec], inputs: Sequence[NDArray[Any]]) -> bool:
    """Whether these tensors are what the model takes."""
    return len(specs) == len(inputs) and all(
        spec.accepts(tensor) for spec, tensor in zip(specs, inputs, strict=True)
    )


def refused(specs: Sequence[TensorSpec], inputs: Sequence[NDArray[Any]], why: str) -> ModelError:
    """The error for an inference that did not come about; `why` if the inputs do fit."""
    if fits(specs, inputs):
        return ModelError("The model failed on an input.", why=why)
    wanted = ", ".join(map(str, specs))
    given = ", ".join(f"{x.dtype}{list(x.shape)}" for x in inputs) or "nothing"
    return ModelError(
        "The input does not fit the model.", why=f"It wants {wanted}, it was given {given}."
    )


def does_not_load(runtime: str, why: str) -> DeviceError:
    """The error for a runtime that is installed and cannot be used here."""
    return DeviceError(
        f"The runtime {runtime} does not load.",
        why=f"{why.splitlines()[0]}." if why else "",
        fix="Reinstall it, in a version for this Python and system.",
    )


def no_provider(runtime: str, provider: str, has: Sequence[str]) -> DeviceError:
    """The error for a provider that this runtime has not got here."""
    return DeviceError(
        f"{runtime} has no provider {provider} here.",
        why=f"It has {', '.join(has)}.",
        fix=f"Install the {runtime} build for this accelerator.",
    )


def require_in_use(runtime: str, provider: str, used: Sequence[str]) -> None:
    """Refuse a session that runs without the provider asked for.

    Raises:
        DeviceError: the runtime fell back, which some do with no more than a log line.
    """
    if provider not in used:
        raise DeviceError(
            f"{runtime} dropped the provider {provider}.",
            why=f"It fell back to {', '.join(used)}.",
            fix="Check the accelerator's driver.",
        )
