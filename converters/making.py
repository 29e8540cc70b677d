"""Make the artifacts of all candidates: prepare and calibrate once, quantize for each flavour."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from converters.candidates import (
    Artifact,
    Candidate,
    candidates_in,
    candidates_of,
    refuse_changed,
    same_outputs,
    write_artifact,
)
from converters.loading import Loaded
from converters.plan import RUNTIME
from converters.progress import Progress, Silent
from converters.quantize import NotQuantizableError, Range, calibrate, prepare
from converters.recipe import FLOAT
from converters.result import LeftOut
from hardware.runtimes import SessionOptions, open_session

_CHECKED_SAMPLES = 4


def make(
    loaded: Loaded, folder: Path, progress: Progress
) -> tuple[list[Artifact], list[Candidate], list[LeftOut]]:
    """Write the artifact of every candidate; those that cannot be made are left out."""
    recipe, targets = loaded.recipe, loaded.plan.targets
    wanted = candidates_in(recipe, targets) if recipe else candidates_of(targets)
    prepared: tuple[Any, dict[str, Range]] | None = None

    def preparation() -> tuple[Any, dict[str, Range]]:
        nonlocal prepared
        if prepared is None:
            prepared = _prepare(loaded, folder, progress)
        return prepared

    baseline = Candidate(target=targets[0], precision=FLOAT, rules=())
    made = {FLOAT: write_artifact(baseline, folder, loaded.model.data, preparation)}
    reasons: dict[str, str] = {}
    for candidate in wanted:
        if candidate.key in made or candidate.key in reasons:
            continue
        progress.step(f"Making {candidate.precision} for {candidate.target.name}")
        try:
            made[candidate.key] = write_artifact(candidate, folder, loaded.model.data, preparation)
        except NotQuantizableError as error:
            if recipe:
                raise
            reasons[candidate.key] = str(error)
            progress.note(str(error))
    refused = [
        LeftOut(target=c.target.name, precision=c.precision, reason=reasons[c.key])
        for c in wanted
        if c.key in reasons
    ]
    return list(made.values()), [c for c in wanted if c.key in made], refused


def _prepare(loaded: Loaded, folder: Path, progress: Progress) -> tuple[Any, dict[str, Range]]:
    progress.step("Folding the model")
    before = open_session(RUNTIME, folder / f"{FLOAT}.onnx", SessionOptions())
    prepared = prepare(loaded.model.data)
    path = folder / "prepared.onnx"
    path.write_bytes(prepared.SerializeToString(deterministic=True))
    after = open_session(RUNTIME, path, SessionOptions())
    try:
        feeds = islice(_feeds(loaded, Silent()), _CHECKED_SAMPLES)
        refuse_changed(max((same_outputs(before, after, feed) for feed in feeds), default=0.0))
    finally:
        before.close()
        after.close()
        path.unlink()
    progress.step("Calibrating", len(loaded.calibration))
    return prepared, calibrate(prepared, _feeds(loaded, progress))


def _feeds(loaded: Loaded, progress: Progress) -> Iterator[Sequence[np.ndarray]]:
    for index, sample in enumerate(loaded.calibration):
        tensors = loaded.task.prepare(sample)
        progress.advance(index + 1)
        if tensors is not None:
            yield tensors
