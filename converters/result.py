"""What a conversion returns, and how it is printed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from cloud_sync.evidence import Accuracy, CompileReport, GateResult, Latency
from converters.methods import CalibrationReport
from edgeml.errors import EdgemlError, ExitCode, exit_code_of

Kind = Literal["pre-processing", "conversion", "quantization"]


class VariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """A variant of the release; `file` and `recipe` are paths of blobs in it.

    `quantization` is empty of the model as it came, whose weights may be float16. `why` says how
    it was made and why it is in the release, `compiled` what a compiler said of it. `latency`,
    `memory_bytes` and `load_ms` are None where nothing of that kind was measured here.
    """

    target: str
    runtime: str
    file: Path
    format: str
    precision: str
    quantization: str
    bytes: int
    verification: str
    recipe: Path
    digest: str
    rank: int
    accuracy: Accuracy
    latency: Latency | None
    memory_bytes: int | None
    load_ms: float | None
    gates: tuple[GateResult, ...] = ()
    why: str = ""
    compiled: CompileReport | None = None


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate that is not in the release, and why; `gates` empty where none was reached.

    `undecided` is set where only doubt kept it out, `remedy` says then what to do;
    `needs_tool` where it was not made for want of a toolchain.
    """

    target: str
    runtime: str = ""
    precision: str
    reason: str
    undecided: bool = False
    needs_tool: bool = False
    remedy: str = ""
    gates: tuple[GateResult, ...] = ()


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """A target of a group that this machine cannot execute or compile for."""

    target: str
    reason: str


def alike(said: Iterable[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """What is said of several names, once each with the names, in the order of the first.

    >>> alike([("a", "too large"), ("b", "too slow"), ("c", "too large")])
    [('too large', ['a', 'c']), ('too slow', ['b'])]
    """
    names: dict[str, list[str]] = {}
    for name, what in said:
        names.setdefault(what, []).append(name)
    return list(names.items())


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """A target that was asked for and is not in the release: what happened, why, what to do.

    `exit_code` is what the command would have ended with, had it been the only one.
    """

    target: str
    what: str
    why: str = ""
    fix: str = ""
    exit_code: int

    @classmethod
    def by(cls, target: str, error: EdgemlError) -> "Failed":
        """The failure that an error is for a target."""
        return cls(
            target=target,
            what=error.what,
            why=error.why,
            fix=error.fix,
            exit_code=int(exit_code_of(error)),
        )

    def __str__(self) -> str:
        return " ".join(filter(None, (self.what, self.why, self.fix)))


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
    failed: tuple[Failed, ...] = ()
    float_kept_because: str | None = None
    warnings: tuple[str, ...] = ()
    doubted: tuple[str, ...] = ()
    losses: tuple[Loss, ...] = ()
    calibration: CalibrationReport | None = None

    @property
    def undecided(self) -> tuple[LeftOut, ...]:
        """The best candidate that only doubt kept out, of each target whose answer is float."""
        doubted: dict[str, LeftOut] = {}
        for candidate in self._not_served:
            if candidate.undecided:
                doubted.setdefault(candidate.target, candidate)
        return tuple(doubted.values())

    @property
    def exit_code(self) -> ExitCode:
        """0, or what is not as it was asked for.

        10: a target has no variant. Else why a target's answer is float although int8 may be
        better: 4: only through doubt, or the float model is doubted; 5: for want of a toolchain.
        """
        if self.failed:
            return ExitCode.PARTLY_DONE
        if self.undecided or self.doubted:
            return ExitCode.GATE_UNDECIDED
        if any(candidate.needs_tool for candidate in self._not_served):
            return ExitCode.TOOLCHAIN_MISSING
        return ExitCode.DONE

    @property
    def _not_served(self) -> list[LeftOut]:
        """What was left out of targets whose answer is float."""
        served = {variant.target for variant in self.variants if variant.quantization}
        return [candidate for candidate in self.left_out if candidate.target not in served]

    def summary(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        body: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_text)
        return body | {"exit_code": int(self.exit_code)}


def _text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))
