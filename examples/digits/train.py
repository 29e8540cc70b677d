"""Trains the two models of this example and writes `digits.onnx` and `digits-v2.onnx`.

    pip install 'edgeml[train,convert,examples]'
    python examples/digits/train.py

Both see the training digits as the camera does, through the release's own pipeline. The first
knows good light only; the second was shown dim, blurred and noisy belts, too. The graph is
written with onnx.helper from the trained weights, so that the file depends on nothing but
them. Neither `make demo` nor `make test` needs this.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from examples.digits.data import CLASSES, Digits, splits
from examples.digits.scene import Conditions
from examples.digits.views import NOMINAL, Range, views
from hardware.pipeline import parse
from hardware.runtimes import TensorSpec

HERE = Path(__file__).parent
WIDE = Range(
    worst=Conditions(light=0.3, blur=3.0, noise=25.0),
    best=Conditions(light=1.2, blur=0.0, noise=0.0),
)
OPSET = 17
IR_VERSION = 8
EPOCHS = 24
BATCH = 64
CHANNELS = (16, 32, 64, 64)
STRIDES = (1, 2, 2, 1)

Array = NDArray[np.float32]


class DigitNet(torch.nn.Module):
    """Four convolutions, the mean over the picture, ten logits; 61 thousand weights."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (1, *CHANNELS)
        self.convolutions = torch.nn.ModuleList(
            torch.nn.Conv2d(sizes[i], sizes[i + 1], 3, stride=STRIDES[i], padding=1)
            for i in range(len(CHANNELS))
        )
        self.classify = torch.nn.Linear(CHANNELS[-1], 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits [N, 10] of images [N, 1, 28, 28]."""
        for convolution in self.convolutions:
            image = torch.relu(convolution(image))
        return self.classify(image.mean(dim=(2, 3)))


def seen(digits: Digits, conditions: Range, seed: tuple[int, ...]) -> tuple[Array, Array]:
    """What the model is given for digits on the belt; those not located are left out."""
    pipeline = parse((HERE / "pipeline.toml").read_bytes())
    runner = pipeline.runner((TensorSpec(name="i", shape=("N", 1, 28, 28), dtype="float32"),))
    tensors, labels = [], []
    for image, label in zip(views(digits, conditions, seed), digits.labels, strict=True):
        made = runner.prepare(image)
        if made is not None:
            tensors.append(made[0][0].copy())
            labels.append(label)
    return np.stack(tensors), np.array(labels)


def train(conditions: tuple[Range, ...], seed: int) -> DigitNet:
    """Train on the training digits, each seen once for every range of conditions."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(1)
    digits = splits().train
    parts = [seen(digits, c, (seed, i)) for i, c in enumerate(conditions)]
    seen_images = np.concatenate([x for x, _ in parts])
    nothing = blank(seen_images[:: len(parts) * 4], seed)
    images = torch.from_numpy(np.concatenate([seen_images, nothing]))
    known = torch.from_numpy(np.concatenate([y for _, y in parts]))
    # Where there is nothing to see, every digit is as likely: the model learns to be unsure.
    labels = torch.full((len(images), CLASSES), 1 / CLASSES)
    labels[: len(known)] = torch.nn.functional.one_hot(known, CLASSES).float()
    model = DigitNet()
    steps = EPOCHS * (len(images) // BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images))
        for at in range(0, len(order) - BATCH + 1, BATCH):
            chosen = order[at : at + BATCH]
            loss = torch.nn.functional.cross_entropy(
                model(images[chosen]), labels[chosen], label_smoothing=0.02
            )
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", file=sys.stderr)
    return model.eval()


def blank(images: Array, seed: int) -> Array:
    """The same pictures with hardly any contrast, so that there is no digit to be seen."""
    contrast = np.random.default_rng(seed).uniform(0, 0.08, (len(images), 1, 1, 1))
    return (images.min() + contrast * (images - images.min())).astype(np.float32)


def export(model: DigitNet, path: Path) -> None:
    """Write the model as ONNX: `image` [N, 1, 28, 28] float32 -> `logits` [N, 10]."""
    nodes, weights, name = [], [], "image"
    for i, convolution in enumerate(model.convolutions):
        weights += [
            _tensor(convolution.weight, f"conv{i}.weight"),
            _tensor(convolution.bias, f"conv{i}.bias"),
        ]
        nodes.append(
            helper.make_node(
                "Conv",
                [name, f"conv{i}.weight", f"conv{i}.bias"],
                [f"conv{i}.out"],
                name=f"conv{i}",
                kernel_shape=[3, 3],
                pads=[1, 1, 1, 1],
                strides=[STRIDES[i]] * 2,
            )
        )
        nodes.append(helper.make_node("Relu", [f"conv{i}.out"], [f"relu{i}"], name=f"relu{i}"))
        name = f"relu{i}"
    weights += [
        _tensor(model.classify.weight, "classify.weight"),
        _tensor(model.classify.bias, "classify.bias"),
    ]
    nodes += [
        helper.make_node("GlobalAveragePool", [name], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["features"], name="flatten"),
        helper.make_node(
            "Gemm",
            ["features", "classify.weight", "classify.bias"],
            ["logits"],
            name="classify",
            transB=1,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    made.ir_version = IR_VERSION
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, str(path))


def _tensor(parameter: torch.Tensor, name: str) -> TensorProto:
    return numpy_helper.from_array(parameter.detach().numpy(), name)


def main() -> None:
    """Train and write both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="the folder to write to")
    out = parser.parse_args().out
    export(train((NOMINAL, NOMINAL), seed=1), out / "digits.onnx")
    export(train((NOMINAL, NOMINAL, WIDE, WIDE), seed=2), out / "digits-v2.onnx")


if __name__ == "__main__":
    main()
