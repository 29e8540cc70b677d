"""A camera stand-in with ground truth: a video of real, held-out digits on a conveyor belt.

    python examples/digits/belt.py --out belt.mp4 --light 0.6 --blur 1.5 --noise 8 --seed 3

writes `belt.mp4`, decoded by an agent like any other video, and `belt.json` beside it, which
says for every frame which digit lies wholly inside the camera's region, or null. The belt
closes in a ring, so the video can be looped. The same arguments give the same frames.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from edgeml.errors import EdgemlError, ToolchainError, UserError, exit_code_of
from examples.digits.data import splits
from examples.digits.scene import HEIGHT, REGION, SPACING, WIDTH, Belt, Camera, Conditions, Image

FPS = 20
_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}


@dataclass(frozen=True)
class BeltPlan:
    """What to show: how many digits, how fast (pixels of belt a frame), seen how."""

    conditions: Conditions = Conditions()
    speed: float = 5.0
    count: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.5 <= self.speed <= SPACING:
            raise UserError(
                f"The belt cannot run at {self.speed} pixels a frame.",
                why=f"It lies outside 0.5 to {SPACING}.",
            )
        if self.seed < 0:
            raise UserError(f"The seed {self.seed} cannot be used.", why="It is negative.")


class Footage:
    """The frames of a plan, each made when it is asked for, and what each one shows."""

    def __init__(self, plan: BeltPlan) -> None:
        held_out = splits().belt
        if plan.count > len(held_out):
            raise UserError(
                f"The belt cannot show {plan.count} digits.",
                why=f"Only {len(held_out)} are kept for it, none of which is used elsewhere.",
            )
        chosen = np.random.default_rng([plan.seed, 0]).permutation(len(held_out))[: plan.count]
        self.belt = Belt(held_out.take(chosen), (plan.seed,))
        self._camera = Camera(plan.conditions, (plan.seed,))
        # Rounded to whole frames a round, so that the last frame leads on to the first.
        self._frames = round(self.belt.length / plan.speed)

    def __len__(self) -> int:
        return self._frames

    def offset(self, index: int) -> int:
        """How far the belt has moved by frame `index`."""
        return round(index * self.belt.length / self._frames)

    def frame(self, index: int) -> Image:
        """Frame `index`, [height, width, 3] BGR."""
        return self._camera.see(self.belt, self.offset(index), index)

    def truth(self) -> list[int | None]:
        """For each frame the digit wholly inside the region, or None."""
        return [self.belt.label_at(self.offset(index)) for index in range(self._frames)]


def write(plan: BeltPlan, out: Path) -> Path:
    """Write the video, and the ground truth beside it; return the latter's path.

    Raises:
        UserError: the file's ending names no known format, or its folder is missing.
        ToolchainError: OpenCV has no encoder for it.
    """
    codec = _CODECS.get(out.suffix)
    if codec is None:
        raise UserError(f"No video can be written to {out}.", why="Known are .mp4 and .avi.")
    if not out.parent.is_dir():
        raise UserError(f"No video can be written to {out}.", why=f"No folder {out.parent}.")
    footage = Footage(plan)
    partial = out.with_name(f".{out.stem}.{os.getpid()}{out.suffix}")
    try:
        writer = cv2.VideoWriter(str(partial), cv2.VideoWriter.fourcc(*codec), FPS, (WIDTH, HEIGHT))
        if not writer.isOpened():
            raise ToolchainError(f"No video can be written to {out}.", why=f"No encoder {codec}.")
        for index in range(len(footage)):
            writer.write(footage.frame(index))
        writer.release()
        truth = out.with_suffix(".json")
        _replace(truth, json.dumps(_document(plan, footage, out.name), indent=1).encode())
        _settle(partial, out)
    finally:
        partial.unlink(missing_ok=True)
    return truth


def _document(plan: BeltPlan, footage: Footage, video: str) -> dict[str, object]:
    return {
        "video": video,
        "fps": FPS,
        "width": WIDTH,
        "height": HEIGHT,
        "region": asdict(REGION),
        **asdict(plan.conditions),
        "speed": plan.speed,
        "count": plan.count,
        "seed": plan.seed,
        "frames": footage.truth(),
    }


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_bytes(data)
    _settle(partial, path)


def _settle(partial: Path, path: Path) -> None:
    with partial.open("rb") as written:
        os.fsync(written.fileno())
    os.replace(partial, path)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    nominal = BeltPlan()
    parser.add_argument("--out", type=Path, required=True, help="the video: .mp4 or .avi")
    parser.add_argument("--light", type=float, default=nominal.conditions.light, help="1: nominal")
    parser.add_argument("--blur", type=float, default=nominal.conditions.blur, help="in pixels")
    parser.add_argument("--noise", type=float, default=nominal.conditions.noise, help="grey levels")
    parser.add_argument("--speed", type=float, default=nominal.speed, help="pixels a frame")
    parser.add_argument("--count", type=int, default=nominal.count, help="how many digits")
    parser.add_argument("--seed", type=int, default=nominal.seed)
    given = parser.parse_args(arguments)
    try:
        conditions = Conditions(light=given.light, blur=given.blur, noise=given.noise)
        plan = BeltPlan(
            conditions=conditions, speed=given.speed, count=given.count, seed=given.seed
        )
        truth = write(plan, given.out)
    except EdgemlError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code_of(error)
    print(f"{given.out}\n{truth}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
