"""The errors that all of edgeml shares, by who must act, and the exit codes.

Every error says three things: what happened, why, and what to do next. The command line
prints them as one sentence each and leaves with the error's exit code; nothing that a user
can cause ends in a traceback.

    >>> print(UserError("No file model.onnx.", why="The path does not exist.", fix="Check it."))
    No file model.onnx. The path does not exist. Check it.
"""

from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What a command's exit status means; the same for every edgeml command."""

    DONE = 0
    USAGE = 2
    GATE_FAILED = 3
    GATE_UNDECIDED = 4
    TOOLCHAIN_MISSING = 5
    BAD_MODEL_OR_DATA = 6
    TRUST = 7
    REMOTE = 8
    DEVICE = 9
    PARTLY_DONE = 10
    INTERRUPTED = 130


class EdgemlError(Exception):
    """An error that a person can act on.

    Args:
        what: what happened, one sentence with its full stop.
        why: the cause, where it is known.
        fix: what to do next.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE

    def __init__(self, what: str, *, why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.fix) if part)


class UserError(EdgemlError):
    """The command or a file the user wrote is wrong."""


class ModelError(EdgemlError):
    """A model, its data or its pipeline cannot be used."""

    exit_code = ExitCode.BAD_MODEL_OR_DATA


class TargetError(EdgemlError):
    """No such target, or the model cannot be made for it."""


class ToolchainError(EdgemlError):
    """A tool or extra that this step needs is not installed or failed."""

    exit_code = ExitCode.TOOLCHAIN_MISSING


class GateFailed(EdgemlError):  # noqa: N818 -- the design's word; a verdict more than a fault
    """A gate failed or stayed undecided (`undecided=True`, exit code 4)."""

    exit_code = ExitCode.GATE_FAILED

    def __init__(self, what: str, *, why: str = "", fix: str = "", undecided: bool = False) -> None:
        super().__init__(what, why=why, fix=fix)
        self.undecided = undecided


class ReleaseError(EdgemlError):
    """A release is malformed, incomplete or not what its digest says."""

    exit_code = ExitCode.BAD_MODEL_OR_DATA


class TrustError(EdgemlError):
    """A signature, certificate, key or version cannot be trusted."""

    exit_code = ExitCode.TRUST


class RemoteError(EdgemlError):
    """The other end cannot be reached or answered with a fault."""

    exit_code = ExitCode.REMOTE


class DeviceError(EdgemlError):
    """This device lacks something or a part of it failed."""

    exit_code = ExitCode.DEVICE


def exit_code_of(error: EdgemlError) -> ExitCode:
    """Return the exit code with which a command that met `error` must end."""
    if isinstance(error, GateFailed) and error.undecided:
        return ExitCode.GATE_UNDECIDED
    return error.exit_code
