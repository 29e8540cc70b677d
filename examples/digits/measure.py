"""Prints how well both models read held-out digits, in good light and in bad.

python examples/digits/measure.py
"""

from pathlib import Path

from examples.digits.data import Digits, splits
from examples.digits.scene import Conditions
from examples.digits.views import NOMINAL, Range, views
from hardware.pipeline import parse
from hardware.runtimes import open_session

HERE = Path(__file__).parent
BAD_LIGHT = Range(
    worst=Conditions(light=0.4, blur=2.5, noise=18.0),
    best=Conditions(light=0.5, blur=1.5, noise=12.0),
)


def accuracy(
    model: str, pipeline: str, digits: Digits, conditions: Range
) -> tuple[float, float, int]:
    """The share read rightly, the share that was confident, and how many were located."""
    session = open_session("onnxruntime", HERE / model)
    runner = parse((HERE / pipeline).read_bytes()).runner(session.inputs)
    right = confident = located = 0
    for image, label in zip(views(digits, conditions, (99,)), digits.labels, strict=True):
        tensors = runner.prepare(image)
        if tensors is None:
            continue
        result = runner.read(session.run(tensors))
        located += 1
        right += result.index == label
        confident += result.confident
    return right / located, confident / located, located


def main() -> None:
    """Print the table."""
    digits = splits().evaluation
    print("| model | pipeline | light | right | confident | located |\n|---|---|---|---|---|---|")
    for model, pipeline in (
        ("digits.onnx", "pipeline.toml"),
        ("digits.onnx", "pipeline-wrong.toml"),
        ("digits-v2.onnx", "pipeline.toml"),
    ):
        for name, conditions in (("good", NOMINAL), ("bad", BAD_LIGHT)):
            right, confident, located = accuracy(model, pipeline, digits, conditions)
            print(
                f"| {model} | {pipeline} | {name} | {right:.1%} | {confident:.1%} "
                f"| {located} of {len(digits)} |"
            )


if __name__ == "__main__":
    main()
