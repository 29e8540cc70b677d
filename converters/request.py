"""What a conversion is asked for, checked before any work is spent on it."""

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cloud_sync.release.reading import check_model, check_version
from edgeml.errors import ReleaseError, UserError
from hardware.profiles import Limits

EXECUTORS = ("local", "ray")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the user asks of a conversion.

    `targets` may name groups (`cpu`). With a `recipe`, targets and decisions are the
    recipe's and none are named. `max_drop` is a share: 0.01 is one point. `runtimes` are the
    only ones to race; none means all that are installed. `dims` fixes free axes, by symbol
    or `input:axis`; `fuse` takes the pipeline's arithmetic into the model. `limits` bound every
    variant beside those of its target's profile. `min_offload` is the least share of a model that
    an accelerator must run; `options` are what backends are told.
    """

    model: Path
    calibration: str
    evaluation: str
    name: str
    version: str
    out: Path
    targets: tuple[str, ...] = ()
    pipeline: Path | None = None
    metric: str = "top1"
    max_drop: float = 0.01
    confidence: float = 0.95
    min_speedup: float = 1.1
    limits: Limits = Limits()
    accept_undecided: str = ""
    recipe: Path | None = None
    runtimes: tuple[str, ...] = ()
    dims: dict[str, int] = {}
    fuse: bool = False
    executor: str = "local"
    min_offload: float = 0.95
    options: dict[str, str] = {}


def check(request: Request) -> None:
    """Refuse a request that cannot be fulfilled whatever the model is.

    Raises:
        UserError: a name, a number or a choice is out of its range; the sentence says which.
    """
    try:
        check_model(request.name)
        check_version(request.version)
    except ReleaseError as error:
        raise UserError(error.what, why=error.why, fix=error.fix) from None
    if request.executor not in EXECUTORS:
        raise UserError(
            f"No executor {request.executor!r}.", why=f"Known are {', '.join(EXECUTORS)}."
        )
    if not (math.isfinite(request.max_drop) and 0 < request.max_drop < 1):
        raise UserError(
            f"A maximal drop of {request.max_drop:g} cannot be used.",
            why="It is a share between 0 and 1; 0.01 is one point.",
        )
    if not 0.5 <= request.confidence < 1:  # noqa: PLR2004
        raise UserError(
            f"A confidence of {request.confidence:g} cannot be used.",
            why="It lies between 0.5 and 1; 0.95 is usual.",
        )
    if not (math.isfinite(request.min_speedup) and request.min_speedup >= 0):
        raise UserError(
            f"A minimal speed-up of {request.min_speedup:g} cannot be used.",
            why="It is a ratio to float32, 0 or more.",
        )
    if not 0 <= request.min_offload <= 1:
        raise UserError(
            f"A minimal offload of {request.min_offload:g} cannot be used.",
            why="It is a share between 0 and 1; 0.95 is usual.",
        )
    if request.accept_undecided and not request.accept_undecided.strip():
        raise UserError(
            "The reason of --accept-undecided is blank.",
            why="It is kept in the release for whoever asks why.",
        )
    if request.targets and request.recipe is not None:
        raise UserError(
            "Targets were named beside a recipe.",
            why="The recipe names its targets itself.",
            fix="Leave out --target.",
        )
    _check_preparation(request)
    if not request.targets and request.recipe is None:
        raise UserError(
            "No target was named.", fix="Add --target cpu, or another of edgeml's targets."
        )


def _check_preparation(request: Request) -> None:
    for axis, size in request.dims.items():
        if size < 1:
            raise UserError(f"The axis {axis} cannot have the size {size}.")
    if request.recipe is not None and (request.dims or request.fuse):
        raise UserError(
            "Axes or fusing were asked for beside a recipe.",
            why="The recipe says itself which axes are fixed and whether the pipeline is fused.",
            fix="Leave out --dim and --fuse.",
        )
    if request.fuse and request.pipeline is None:
        raise UserError(
            "There is nothing to fuse.",
            why="Fused is what a pipeline computes, and none was given.",
            fix="Add --pipeline FILE, or leave out --fuse.",
        )


def parse_options(given: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` as the command takes them.

    Raises:
        UserError: one is not of that form.
    """
    parsed = {}
    for text in given:
        name, is_pair, value = text.partition("=")
        if not (name and is_pair):
            raise UserError(f"--option {text} cannot be used.", why="It has the form NAME=VALUE.")
        parsed[name] = value
    return parsed
