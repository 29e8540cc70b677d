"""A device with a committed release, made by hand: no fleet is needed to run its agent."""

import datetime as dt
from pathlib import Path

import cv2
import msgspec
import numpy as np

from cloud_sync.evidence import Verification
from cloud_sync.messages import (
    Configuration,
    DesiredModel,
    MqttAccess,
    Phase,
    SourceConfig,
)
from cloud_sync.release import Layout, ReleaseBuilder
from cloud_sync.trust import generate, save_key
from cloud_sync.trust.identity import issue, make_ca
from cloud_sync.trust.keys import public_pem
from cloud_sync.update_machine import ModelState
from edge_agent.choices import Choices
from edge_agent.execution import Execution
from edge_agent.update.journal import DeviceState, Journal
from hardware.probes import probe
from hardware.requirements import Requirements, RuntimeRequirement

MODEL = "bench"
NOBODY = "127.0.0.1:9"


def make_device(folder: Path, model: Path, pipeline: bytes, images: Path, fps: float) -> Path:
    """Write the data of a device that runs `model` on `images`; returns its `agent.toml`."""
    data = folder / "device"
    data.mkdir(parents=True)
    desired = make_release(data, model, pipeline, "1.0.0")
    source = SourceConfig(name="camera", uri=f"images://{images}", model=MODEL, fps=fps)
    Journal(data / "state.json").write(
        DeviceState(
            configuration=Configuration(sources=(source,)),
            wanted=Configuration(sources=(source,)),
            models={MODEL: ModelState(phase=Phase.COMMITTED, running=desired)},
        )
    )
    capabilities = probe()
    version = next(r.version for r in capabilities.runtimes if r.name == "onnxruntime")
    chosen = Execution(runtime="onnxruntime", version=version)
    Choices(data / "choices.json", capabilities).keep(desired, chosen)
    return _identity(data)


def make_release(data: Path, model: Path, pipeline: bytes, version: str) -> DesiredModel:
    """Write a release below `data/releases`, as a device holds it."""
    builder = ReleaseBuilder(MODEL, version)
    builder.add_variant(
        target="cpu-bench",
        rank=0,
        requires=Requirements(
            architecture=probe().architecture,
            runtimes=(RuntimeRequirement(name="onnxruntime"),),
        ),
        format="onnx",
        precision="float32",
        quantization="",
        verification=Verification.ESTIMATED,
        files={"model": ("model.onnx", model), "pipeline": ("pipeline.toml", pipeline)},
    )
    release = builder.write(Layout.create(data / "releases"))
    return DesiredModel(
        release=release.digest, variant=release.variants[0].digest, release_version=version
    )


def make_images(folder: Path, size: int, count: int = 16) -> Path:
    """Noise as JPEG files, in colour."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    for index in range(count):
        image = random.integers(0, 256, (size, size, 3), np.uint8)
        cv2.imwrite(str(folder / f"{index:03}.jpg"), image)
    return folder


def _identity(data: Path) -> Path:
    folder = data / "identity"
    folder.mkdir(mode=0o700)
    key, ca_key, director = generate(), generate(), generate()
    now = dt.datetime.now(dt.UTC)
    ca = make_ca(ca_key, now)
    save_key(key, folder / "device.key")
    (folder / "device.pem").write_text(issue("bench", key.public_key(), ca, ca_key, now))
    (folder / "ca.pem").write_text(ca)
    (folder / "director.pem").write_text(public_pem(director.public_key()))
    access = MqttAccess(url=f"mqtt://{NOBODY}", username="bench", password="none")
    (folder / "mqtt.json").write_bytes(msgspec.json.encode(access))
    config = data / "agent.toml"
    config.write_text(
        f'[agent]\ndevice = "bench"\ndata_dir = "{data}"\nfleet_url = "http://{NOBODY}"\n'
    )
    return config
