"""Vitis AI's provider as a runtime: there with the provider, and never without it."""

from pathlib import Path

import numpy as np
import pytest

from edgeml.errors import DeviceError
from hardware.runtimes import SessionOptions, open_session, runtimes, runtimes_for
from hardware.runtimes.vitisai import PROVIDER, VitisAiRuntime
from tests import needs
from tests.hardware.models import linear


class Standing(VitisAiRuntime):
    """The adapter on a provider that every onnxruntime has: all of it but AMD's provider."""

    provider = "CPUExecutionProvider"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return linear(tmp_path / "model.onnx")


def test_it_is_not_listed_where_onnxruntime_has_no_such_provider(model: Path) -> None:
    if PROVIDER in needs.module("onnxruntime").get_available_providers():
        pytest.skip("this machine has Vitis AI")
    assert runtimes()["vitisai"].info() is None
    assert "vitisai" not in runtimes_for(model)
    with pytest.raises(DeviceError, match="vitisai is not installed"):
        open_session("vitisai", model)
    with pytest.raises(DeviceError, match=PROVIDER):
        VitisAiRuntime().load(model, SessionOptions())


def test_where_the_provider_is_a_model_runs_on_it_and_says_so(model: Path) -> None:
    info = Standing().info()
    assert info is not None
    assert (info.name, info.providers) == ("vitisai", ("CPUExecutionProvider",))
    session = Standing().load(model, SessionOptions())
    [logits] = session.run([np.ones((1, 1, 4, 4), np.float32)])
    assert logits.shape == (1, 3)
    assert set(session.placement()) == {"CPUExecutionProvider"}
    session.close()


def test_another_provider_is_refused(model: Path) -> None:
    with pytest.raises(DeviceError, match="CUDAExecutionProvider"):
        Standing().load(model, SessionOptions(provider="CUDAExecutionProvider"))
