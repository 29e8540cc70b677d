"""What a conversion returns, and how it is printed."""

from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.evidence import Accuracy, GateResult, Latency
from edgeml.errors import ExitCode


class VariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """A variant of the release; `file` and `recipe` are paths of blobs in it.

    `why` says how it was made and why it is in the release.
    """

    target: str
    runtime: str
    file: Path
    format: str
    precision: str
    bytes: int
    verification: str
    recipe: Path
    digest: str
    rank: int
    accuracy: Accuracy
    latency: Latency | None
    memory_bytes: int
    load_ms: float
    gates: tuple[GateResult, ...] = ()
    why: str = ""


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that is not in the release, and why; `gates` empty where none was reached."""

    target: str
    runtime: str = ""
    precision: str
    reason: str
    undecided: bool = False
    gates: tuple[GateResult, ...] = ()


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A target of a group that this machine cannot execute."""

    target: str
    reason: str


class ConversionResult(msgspec.Struct, frozen=True, kw_only=True):
    """A finished conversion; variants are ordered by target, then best first."""

    release: str
    evidence: str
    path: Path
    model: str
    version: str
    variants: tuple[VariantResult, ...]
    left_out: tuple[LeftOut, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    float_kept_because: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """0, or 4 where an undecided gate alone kept an int8 candidate out."""
        undecided = any(candidate.undecided for candidate in self.left_out)
        return ExitCode.GATE_UNDECIDED if undecided else ExitCode.DONE

    def summary(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        body: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_text)
        return body | {"exit_code": int(self.exit_code)}


def _text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))
