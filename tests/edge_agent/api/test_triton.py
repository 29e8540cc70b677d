"""The Open Inference Protocol as its own client speaks it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edge_agent.api.server import LocalApi
from tests import needs
from tests.edge_agent.api.conftest import MODEL, Bench

triton = needs.module("tritonclient.http")


@pytest.fixture
def client(serve: Callable[..., LocalApi]) -> Iterator[Any]:
    client = triton.InferenceServerClient(str(serve().address))
    yield client
    client.close()


def an_input(image: np.ndarray, *, binary: bool) -> list:
    given = triton.InferInput("image", list(image.shape), "FP32")
    given.set_data_from_numpy(image, binary_data=binary)
    return [given]


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(2).random((1, 1, 4, 4), np.float32)


def test_the_server_and_its_model_are_live_and_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1.2.0")
    assert not client.is_model_ready(MODEL, "9.9.9")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]


def test_a_model_is_described_with_its_tensors(client: Any) -> None:
    said = client.get_model_metadata(MODEL)
    assert said == {
        "name": MODEL,
        "versions": ["1.2.0"],
        "platform": "onnxruntime",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 1, 4, 4]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert client.get_model_metadata(MODEL, "1.2.0") == said


@pytest.mark.parametrize("into", [True, False], ids=["bytes", "json"])
@pytest.mark.parametrize("back", [True, False], ids=["bytes", "json"])
def test_an_inference_gives_what_the_session_gives(
    client: Any, bench: Bench, image: np.ndarray, *, into: bool, back: bool
) -> None:
    wanted = [triton.InferRequestedOutput("logits", binary_data=back)]
    answer = client.infer(MODEL, an_input(image, binary=into), outputs=wanted, request_id="7")
    [expected] = bench.loaded.session.run([image])
    assert np.allclose(answer.as_numpy("logits"), expected, rtol=0, atol=0 if back else 1e-7)
    assert answer.get_response()["id"] == "7"
    assert answer.get_response()["model_version"] == "1.2.0"


def test_without_named_outputs_all_come(client: Any, image: np.ndarray) -> None:
    assert client.infer(MODEL, an_input(image, binary=True)).as_numpy("logits").shape == (1, 3)


def test_a_batch_is_a_shape_like_any_other(client: Any, image: np.ndarray) -> None:
    batch = np.repeat(image, 5, axis=0)
    assert client.infer(MODEL, an_input(batch, binary=True)).as_numpy("logits").shape == (5, 3)


def test_what_does_not_fit_is_said(client: Any, image: np.ndarray) -> None:
    def refused(inputs: list, model: str = MODEL, **how: Any) -> str:
        with pytest.raises(triton.InferenceServerException) as said:
            client.infer(model, inputs, **how)
        return str(said.value)

    wrong = an_input(np.zeros((1, 1, 5, 4), np.float32), binary=True)
    assert "wants image float32[N, 1, 4, 4], got float32[1, 1, 5, 4]" in refused(wrong)
    double = triton.InferInput("image", [1, 1, 4, 4], "FP64")
    double.set_data_from_numpy(image.astype(np.float64))
    assert "got float64" in refused([double])
    words = triton.InferInput("image", [1], "BYTES")
    words.set_data_from_numpy(np.array([b"seven"], object))
    assert "BYTES is not supported" in refused([words])
    other = triton.InferInput("picture", [1, 1, 4, 4], "FP32")
    other.set_data_from_numpy(image)
    assert "has no input picture" in refused([other])
    good = an_input(image, binary=True)
    assert "what runs: toy:1.2.0" in refused(good, "other")
    assert "what runs: toy:1.2.0" in refused(good, model_version="3")
    unknown = [triton.InferRequestedOutput("scores")]
    assert "has no output scores" in refused(good, outputs=unknown)
    top = [triton.InferRequestedOutput("logits", class_count=2)]
    assert "classification is not supported" in refused(good, outputs=top)
    assert "content encoding gzip" in refused(good, request_compression_algorithm="gzip")


def test_many_clients_infer_while_the_device_infers_its_own_frames(
    serve: Callable[..., LocalApi], bench: Bench, image: np.ndarray
) -> None:
    bench.start()
    address = str(serve().address)
    [expected] = bench.loaded.session.run([image])
    wrong: list[object] = []

    def ask() -> None:
        client = triton.InferenceServerClient(address)
        try:
            for _ in range(25):
                answer = client.infer(MODEL, an_input(image, binary=True))
                if not np.array_equal(answer.as_numpy("logits"), expected):
                    wrong.append(answer.get_response())
        except Exception as error:
            wrong.append(error)
            raise
        finally:
            client.close()

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    bench.workers.report(5.0)
    assert sum(window.inferred for window in bench.windows) > 5
    assert sum(window.errors for window in bench.windows) == 0
