"""Releases for tests: real ones, of a tiny model, with golden set and recorded outputs."""

import random
from pathlib import Path

import numpy as np
import onnx

from cloud_sync.evidence import Verification
from cloud_sync.golden import GoldenSet, Recorded, encode_golden, encode_recorded
from cloud_sync.release import Layout, Release, ReleaseBuilder
from hardware.pipeline import parse
from hardware.probes import instruction_set, probe
from hardware.requirements import Requirements, RuntimeRequirement
from hardware.runtimes import open_session, runtimes
from tests.hardware.models import linear

PIPELINE = b"""
version = 1
labels = ["a", "b", "c"]
[[pre]]
op = "colour"
to = "gray"
[[pre]]
op = "resize"
width = 4
height = 4
[[pre]]
op = "scale"
factor = 0.00392156862745098
[[pre]]
op = "layout"
to = "NCHW"
[[post]]
op = "softmax"
[[post]]
op = "threshold"
value = 0.4
[site]
allow = ["region", "threshold"]
"""


def make_release(
    folder: Path,
    version: str = "1.0.0",
    *,
    seed: int = 0,
    pipeline: bytes = PIPELINE,
    spoil_recording: bool = False,
    recorded_with: str = "",
    model: str = "toy",
    architecture: str = "",
    ballast: int = 0,
) -> tuple[Layout, Release]:
    """A release that this machine (or one of an architecture) can run, made and recorded here.

    Without a pipeline its golden samples are the model's own inputs. `ballast` makes the model so
    many bytes larger, the same ones in each, that hardly compress: a delta pays then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    onnx_file = linear(folder / "model.onnx", seed=seed)
    if ballast:
        loaded = onnx.load(onnx_file)
        text = random.Random(1).randbytes(ballast // 2).hex()
        loaded.metadata_props.add(key="ballast", value=text)
        onnx.save(loaded, onnx_file)
    session = open_session("onnxruntime", onnx_file)
    images = np.random.default_rng(3).integers(0, 256, (6, 8, 8), np.uint8)
    if pipeline:
        prepare = parse(pipeline).runner(session.inputs).prepare
    else:
        images = images[:, np.newaxis, :4, :4].astype(np.float32) / 255
        prepare = lambda image: [session.inputs[0].tensor(image)]  # noqa: E731
    outputs = np.concatenate([session.run(prepare(image) or [])[0].copy() for image in images])
    golden = GoldenSet(inputs=images, labels=outputs.argmax(axis=1), outputs=(outputs,))
    info = runtimes()["onnxruntime"].info()
    assert info is not None
    device = probe()
    recorded = Recorded(
        runtime="onnxruntime",
        runtime_version=recorded_with or info.version,
        instruction_set=instruction_set(device),
        tolerance=0.0,
        other_tolerance=1e-4,
        outputs=(outputs + (1.0 if spoil_recording else 0.0),),
    )
    builder = ReleaseBuilder(model, version)
    builder.add_variant(
        target="cpu-test",
        rank=0,
        requires=Requirements(
            architecture=architecture or device.architecture,
            runtimes=(RuntimeRequirement(name="onnxruntime", versions=">=1.17"),),
        ),
        format="onnx",
        precision="float32",
        quantization="",
        verification=Verification.ARTIFACT_EXECUTED,
        files={
            "model": ("model.onnx", onnx_file),
            **({"pipeline": ("pipeline.toml", pipeline)} if pipeline else {}),
            "golden": ("golden.npz", encode_golden(golden)),
            "recorded": ("recorded.npz", encode_recorded([recorded])),
        },
    )
    layout = Layout.create(folder / "release")
    return layout, builder.write(layout)
