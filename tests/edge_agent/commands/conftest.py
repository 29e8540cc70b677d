"""A release folder, a video, and an enrolled device."""

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from cloud_sync.release import Layout, ReleaseBuilder
from cloud_sync.release.builder import Content
from hardware.requirements import RuntimeRequirement
from tests import needs
from tests.cloud_sync.releases import PIPELINE, make_release

FRAMES = 30


@pytest.fixture
def release(tmp_path: Path) -> Path:
    layout, _ = make_release(tmp_path / "made", "1.2.0")
    return layout.folder


@pytest.fixture
def two_variants(tmp_path: Path) -> Path:
    """A release as `edgeml convert` makes it: a variant for each runtime, of one target."""
    needs.module("openvino")
    layout, made = make_release(tmp_path / "one", "1.2.0")
    [only] = made.variants
    files: dict[str, tuple[str, Content]] = {
        file.role: (file.path, layout.blobs.read(file.digest, file.size)) for file in only.files
    }
    builder = ReleaseBuilder(made.model, made.version)
    for rank, runtime in enumerate(("onnxruntime", "openvino")):
        wanted = (RuntimeRequirement(name=runtime, versions=">=1"),)
        builder.add_variant(
            target=only.target,
            rank=rank,
            requires=msgspec.structs.replace(only.requires, runtimes=wanted),
            format=only.format,
            precision=only.precision,
            quantization=only.quantization,
            verification=only.verification,
            files=files | {"pipeline": ("pipeline.toml", PIPELINE + f"# {runtime}\n".encode())},
        )
    folder = Layout.create(tmp_path / "two")
    builder.write(folder)
    return folder.folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "a belt.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 30, (64, 48))
    for index in range(FRAMES):
        picture = np.full((48, 64, 3), 30, np.uint8)
        cv2.circle(picture, (10 + index, 24), 8, (0, 200, 250), -1)
        writer.write(picture)
    writer.release()
    return path
