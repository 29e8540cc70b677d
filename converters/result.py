"""What a conversion returns, and how it is printed."""

from pathlib import Path
from typing import Any, Literal

import msgspec

from cloud_sync.evidence import Accuracy, GateResult, Latency
from converters.methods import CalibrationReport
from converters.recipe import FLOAT
from edgeml.errors import ExitCode

Kind = Literal["pre-processing", "conversion", "quantization"]


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
    """A candidate that is not in the release, and why; `gates` empty where none was reached.

    `undecided` is set where only doubt kept it out, `remedy` says then what to do.
    """

    target: str
    runtime: str = ""
    precision: str
    reason: str
    undecided: bool = False
    remedy: str = ""
    gates: tuple[GateResult, ...] = ()


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A target of a group that this machine cannot execute."""

    target: str
    reason: str


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """A comparison of accuracy on the same samples: what kind of loss it shows.

    `target`, `runtime` and `move` are empty where they do not matter.
    """

    kind: Kind
    target: str = ""
    runtime: str = ""
    move: str = ""
    gate: GateResult

    @property
    def where(self) -> str:
        """What was compared, for people; empty for what holds everywhere."""
        on = f"on {self.runtime}" if self.runtime else ""
        return " ".join(filter(None, (self.target, self.move, on)))


class ConversionResult(msgspec.Struct, frozen=True, kw_only=True):
    """A finished conversion; variants are ordered by target, then best first.

    `doubted` are warnings about the float model itself that nobody accepted: as wrong as it may
    be, all that was compared with it may be as well.
    """

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
    doubted: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()
    calibration: CalibrationReport | None = None

    @property
    def undecided(self) -> tuple[LeftOut, ...]:
        """The best candidate that only doubt kept out, of each target whose answer is float."""
        served = {variant.target for variant in self.variants if variant.precision != FLOAT}
        doubted: dict[str, LeftOut] = {}
        for candidate in self.left_out:
            if candidate.undecided and candidate.target not in served:
                doubted.setdefault(candidate.target, candidate)
        return tuple(doubted.values())

    @property
    def exit_code(self) -> ExitCode:
        """0, or 4: a target's answer is float only through doubt, or the float model is doubted."""
        doubtful = self.undecided or self.doubted
        return ExitCode.GATE_UNDECIDED if doubtful else ExitCode.DONE

    def summary(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        body: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_text)
        return body | {"exit_code": int(self.exit_code)}


def _text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))
