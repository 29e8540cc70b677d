"""The pairs are what they say: further training makes the model better at what it was shown."""

import numpy as np
import onnx
import onnxruntime

from benchmarks.delta_pairs import EXAMPLE, INPUT, seen, trained
from examples.digits.data import splits
from examples.digits.views import NOMINAL


def loss(model: onnx.ModelProto, images: np.ndarray, labels: np.ndarray) -> float:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    logits = session.run(None, {INPUT: images})[0]
    sums = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1))
    own = logits[np.arange(len(labels)), labels] - logits.max(axis=1)
    return float((sums - own).mean())


def test_fine_tuning_lowers_the_loss_and_one_layer_changes_one_layer() -> None:
    images, labels = seen(splits().train.take(slice(0, 128)), NOMINAL)
    assert len({image.tobytes() for image in images}) > 100
    before = onnx.load(str(EXAMPLE / "digits.onnx"))
    after = trained(before, images, labels)
    assert loss(after, images, labels) < loss(before, images, labels)
    head = trained(before, images, labels, only="classify")
    changed = {
        a.name
        for a, b in zip(before.graph.initializer, head.graph.initializer, strict=True)
        if a != b
    }
    assert changed == {"classify.weight", "classify.bias"}
