"""A 64-bit Arm board: pip finds a wheel of every package that a device carries."""

import json
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name, parse_wheel_filename

from tests.arm64 import PLATFORMS, pip_install

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("extra", "python"),
    [("agent", "3.11"), ("agent", "3.13"), ("agent-litert", "3.11"), ("agent-openvino", "3.11")],
)
def test_the_extra_is_all_wheels_for_aarch64(extra: str, python: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    nowhere = ["--dry-run", "--ignore-installed", "--target", str(tmp_path / "none")]
    done = pip_install([*nowhere, "--report", str(report), f".[{extra}]"], PLATFORMS, python)
    if done.returncode and pip_install([*nowhere, "msgspec"], (), "").returncode:
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1:]}")
    assert done.returncode == 0, done.stderr
    urls = {
        canonicalize_name(entry["metadata"]["name"]): entry["download_info"]["url"]
        for entry in json.loads(report.read_text())["install"]
    }
    del urls[canonicalize_name("edgeml")]
    runtime = {"agent-litert": "ai-edge-litert", "agent-openvino": "openvino"}.get(extra)
    assert {"onnxruntime", "numpy", "opencv-python-headless", runtime or "tuf"} <= urls.keys()
    for url in urls.values():
        tags = parse_wheel_filename(url.rpartition("/")[2])[3]
        assert any(tag.platform == "any" or tag.platform.endswith("aarch64") for tag in tags), url
