"""What a pipeline reads from a model's outputs: one kind of result for each task.

Every result answers the same four questions, so that statistics, trials and result files need
no task's name: its label, its confidence, whether it counts as confident, and its JSON line.
"""

from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SMALL = 64  # values that a result line still holds in full


class Result(Protocol):
    """What all results answer."""

    @property
    def label(self) -> str:
        """What statistics count it as; empty for nothing."""
        ...

    @property
    def confidence(self) -> float:
        """The score behind it."""
        ...

    @property
    def confident(self) -> bool:
        """Whether the threshold was met."""
        ...

    def line(self) -> dict[str, Any]:
        """What the line of a result file says, as JSON."""
        ...


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """The best label, its score and the `k` best; `confident` at or above the threshold."""

    index: int
    label: str
    confidence: float
    top: tuple[tuple[str, float], ...]
    confident: bool

    def line(self) -> dict[str, Any]:
        """Label and confidence; more labels where more than one was asked for."""
        found = _headline(self)
        if len(self.top) > 1:
            found["top"] = [[label, round(score, 4)] for label, score in self.top]
        return found


class Detections(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Boxes, best first.

    `boxes` float32 [n, 4] are x1 y1 x2 y2 in pixels of the frame (of the image, where there was
    no crop); `scores` float32 [n], `classes` int64 [n], `names` of the labels; `keypoints`
    float32 [n, k, 2] or None.
    """

    boxes: Floats
    scores: Floats
    classes: NDArray[np.int64]
    names: tuple[str, ...]
    keypoints: Floats | None = None

    @property
    def label(self) -> str:
        """The best box's label; empty where nothing was found."""
        return self.names[0] if self.names else ""

    @property
    def confidence(self) -> float:
        """The best box's score."""
        return float(self.scores[0]) if len(self.scores) else 0.0

    @property
    def confident(self) -> bool:
        """Whether anything was found."""
        return bool(self.names)

    def line(self) -> dict[str, Any]:
        """The objects with their boxes, to a tenth of a pixel."""
        found = _headline(self)
        found["objects"] = [
            {"label": name, "score": round(float(score), 4), "box": _rounded(box, 1)}
            for name, score, box in zip(self.names, self.scores, self.boxes, strict=True)
        ]
        if self.keypoints is not None:
            for item, points in zip(found["objects"], self.keypoints, strict=True):
                item["keypoints"] = _rounded(points, 1)
        return found


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """A line of text; the confidence is the mean score of its characters."""

    text: str
    confidence: float
    confident: bool

    @property
    def label(self) -> str:
        """Whether there is text: what it says would make a class of every line."""
        return "text" if self.text else ""

    def line(self) -> dict[str, Any]:
        """The text."""
        return _headline(self) | {"text": self.text}


class Keyword(msgspec.Struct, frozen=True, kw_only=True):
    """The likeliest word of the last window; `spotted` once for each time it was said."""

    label: str
    confidence: float
    spotted: bool

    @property
    def confident(self) -> bool:
        """Whether a word was spotted."""
        return self.spotted

    def line(self) -> dict[str, Any]:
        """The word and whether it was spotted now."""
        return _headline(self)


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """How far the input is from what is normal; `anomalous` at or above the threshold."""

    score: float
    anomalous: bool

    @property
    def label(self) -> str:
        """What statistics count."""
        return "anomalous" if self.anomalous else "normal"

    @property
    def confidence(self) -> float:
        """The score, which is no probability."""
        return self.score

    @property
    def confident(self) -> bool:
        """Every verdict of a threshold is one."""
        return True

    def line(self) -> dict[str, Any]:
        """The score."""
        return {"label": self.label, "score": round(self.score, 6)}


class Embedding(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A vector float32 [n] of length one; with a gallery, the nearest of it and its cosine."""

    vector: Floats
    label: str = ""
    confidence: float = 0.0
    confident: bool = True

    def line(self) -> dict[str, Any]:
        """The nearest of the gallery; the vector."""
        return _headline(self) | {"vector": _rounded(self.vector, 6)}


class Raw(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The model's outputs as they are."""

    outputs: tuple[NDArray[Any], ...]

    @property
    def label(self) -> str:
        """Nothing is read from them."""
        return ""

    @property
    def confidence(self) -> float:
        """Nothing is read from them."""
        return 0.0

    @property
    def confident(self) -> bool:
        """There is nothing to doubt."""
        return True

    def line(self) -> dict[str, Any]:
        """Shape and type of each output; the values of small ones."""
        return {
            "outputs": [
                {"dtype": a.dtype.name, "shape": list(a.shape)}
                | ({"values": a.reshape(-1).tolist()} if a.size <= SMALL else {})
                for a in self.outputs
            ]
        }


def _headline(result: Result) -> dict[str, Any]:
    return {
        "label": result.label,
        "confidence": round(result.confidence, 4),
        "confident": result.confident,
    }


def _rounded(values: NDArray[Any], digits: int) -> Any:
    return np.round(values.astype(np.float64), digits).tolist()
