"""The cost of each pre-processing path, beside the bare OpenCV call that it cannot do without.

A resize to the model's size is the least that any path does; `blobFromImage` is what OpenCV
itself offers for resize, colour, scale and layout in one; naive numpy is what is often written.
The rows `blob` and `naive` are lower where edgeml is quicker. All frames are 640 x 480.
"""

import time
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Row, interleave, main, ratio_row, versions
from hardware.pipeline import parse
from hardware.pipeline.postprocessors.boxes import suppress
from hardware.runtimes import TensorSpec

FRAMES = 8
SIDES = (96, 224, 320)
GOAL_RESIZE, GOAL_BLOB = 3.0, 1.1

Image = NDArray[np.uint8]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEPS = {
    "resize": '[[pre]]\nop = "resize"\nwidth = {side}\nheight = {side}\n',
    "letterbox": '[[pre]]\nop = "letterbox"\nwidth = {side}\nheight = {side}\n',
    "gray": '[[pre]]\nop = "colour"\nto = "gray"\n',
    "rgb": '[[pre]]\nop = "colour"\nto = "rgb"\n',
    "scale": '[[pre]]\nop = "scale"\nfactor = 0.00392156862745098\n',
    "normalise": f'[[pre]]\nop = "scale"\nfactor = 0.00392156862745098\nmean = {list(MEAN)}\n'
    f"std = {list(STD)}\n",
    "nchw": '[[pre]]\nop = "layout"\nto = "NCHW"\n',
    "nhwc": '[[pre]]\nop = "layout"\nto = "NHWC"\n',
}
PATHS = {
    "rgb_float_nchw": (("resize", "rgb", "normalise", "nchw"), 3, "float32"),
    "letterbox_float_nchw": (("letterbox", "rgb", "scale", "nchw"), 3, "float32"),
    "gray_float_nchw": (("gray", "resize", "scale", "nchw"), 1, "float32"),
    "rgb_bytes_nhwc": (("resize", "rgb", "nhwc"), 3, "uint8"),
}


def run(quick: bool) -> list[Row]:
    """Measure each path at each size."""
    cv2.setNumThreads(1)
    calls, rounds = (40, 7) if quick else (200, 15)
    frames = list(np.random.default_rng(1).integers(0, 256, (FRAMES, 480, 640, 3), np.uint8))
    rows = []
    for name in PATHS:
        for side in SIDES:
            ours, bare = _path(name, side), _resize(name, side)
            rows.append(
                _row(
                    f"{name}.{side}.vs_resize",
                    ours,
                    bare,
                    frames,
                    calls=calls,
                    rounds=rounds,
                    text="cv2.resize",
                )
            )
    for side in SIDES:
        ours = _path("rgb_float_nchw", side)
        peers = {"blob": (_blob(side), "blobFromImage"), "naive": (_naive(side), "naive numpy")}
        for word, (peer, text) in peers.items():
            rows.append(
                _row(
                    f"rgb_float_nchw.{side}.vs_{word}",
                    ours,
                    peer,
                    frames,
                    calls=calls,
                    rounds=rounds,
                    text=text,
                )
            )
    rows.append(_suppression(calls, rounds))
    return rows


def _row(
    metric: str,
    ours: Callable[[Image], object],
    peer: Callable[[Image], object],
    frames: list[Image],
    *,
    calls: int,
    rounds: int,
    text: str,
) -> Row:
    measured = interleave(
        lambda: _microseconds(ours, frames, calls),
        lambda: _microseconds(peer, frames, calls),
        rounds,
    )
    bound = GOAL_RESIZE if "resize" in metric else GOAL_BLOB
    return ratio_row(
        metric, measured, unit="us", peer=text, goal=f"at most {bound} x", at_most=bound
    )


def _microseconds(one: Callable[[Image], object], frames: list[Image], calls: int) -> float:
    """The median of some calls."""
    spent = []
    for index in range(calls):
        frame = frames[index % len(frames)]
        begun = time.perf_counter()
        one(frame)
        spent.append((time.perf_counter() - begun) * 1e6)
    return float(np.median(spent))


def _path(name: str, side: int) -> Callable[[Image], object]:
    steps, channels, dtype = PATHS[name]
    text = 'version = 1\nlabels = ["a"]\n' + "".join(
        STEPS[step].format(side=side) for step in steps
    )
    shape = (1, side, side, channels) if "nhwc" in steps else (1, channels, side, side)
    runner = parse(text.encode()).runner([TensorSpec(name="image", shape=shape, dtype=dtype)])
    return runner.prepare


def _resize(name: str, side: int) -> Callable[[Image], object]:
    """A resize by area, as the pipeline shrinks; of a gray picture behind its conversion."""
    gray = name.startswith("gray")
    size = (side, side * 3 // 4) if name.startswith("letterbox") else (side, side)
    out = np.empty(size[::-1] if gray else (*size[::-1], 3), np.uint8)
    middle = np.empty((480, 640), np.uint8)

    def one(frame: Image) -> object:
        given = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY, dst=middle) if gray else frame
        return cv2.resize(given, size, dst=out, interpolation=cv2.INTER_AREA)

    return one


def _blob(side: int) -> Callable[[Image], object]:
    """With the same resize, since blobFromImage has a coarser one."""
    small = np.empty((side, side, 3), np.uint8)
    mean = tuple(255 * value for value in MEAN)
    deviation = np.array(STD, np.float32).reshape(1, 3, 1, 1)

    def one(frame: Image) -> object:
        cv2.resize(frame, (side, side), dst=small, interpolation=cv2.INTER_AREA)
        blob = cv2.dnn.blobFromImage(small, 1 / 255, (side, side), mean, swapRB=True)
        return np.divide(blob, deviation, out=blob)

    return one


def _naive(side: int) -> Callable[[Image], object]:
    mean, deviation = np.array(MEAN, np.float32), np.array(STD, np.float32)

    def one(frame: Image) -> object:
        small = cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
        scaled = (small[..., ::-1].astype(np.float32) / 255 - mean) / deviation
        return np.ascontiguousarray(scaled.transpose(2, 0, 1)[np.newaxis])

    return one


def _suppression(calls: int, rounds: int) -> Row:
    """Overlaps of 500 boxes, beside the bare call of OpenCV's with prepared arguments."""
    random = np.random.default_rng(2)
    corners = random.uniform(0, 600, (500, 2)).astype(np.float32)
    sizes = random.uniform(20, 80, (500, 2)).astype(np.float32)
    boxes, plain = np.hstack([corners, corners + sizes]), np.hstack([corners, sizes])
    scores, classes = random.uniform(0.3, 1, 500).astype(np.float32), np.arange(500) % 4
    prepared = plain.astype(np.float64)
    measured = interleave(
        lambda: _microseconds(lambda _: suppress(boxes, scores, classes, 0.5), [prepared], calls),  # type: ignore[list-item]
        lambda: _microseconds(
            lambda _: cv2.dnn.NMSBoxesBatched(prepared, scores, classes, 0.0, 0.5),  # type: ignore[arg-type]
            [prepared],  # type: ignore[list-item]
            calls,
        ),
        rounds,
    )
    return ratio_row(
        "suppress.500.vs_nms_boxes",
        measured,
        unit="us",
        peer="cv2.dnn.NMSBoxesBatched",
        goal="at most 1.2 x",
        at_most=1.2,
    )


if __name__ == "__main__":
    main(
        "pipeline",
        run,
        description="The cost of pre-processing a frame, beside the bare OpenCV call.",
        conditions=versions("opencv-python-headless", "numpy") | {"threads": "1"},
    )
