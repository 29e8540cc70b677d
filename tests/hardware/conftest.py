"""Real models, and inputs for them."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """The folder of real models, from EDGEML_MODELS or beside the repository."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "models"
    folder = Path(os.environ.get("EDGEML_MODELS", beside))
    if not folder.is_dir():
        pytest.skip("the folder of real models is not here; name it in EDGEML_MODELS")
    return folder


# From data as they are stored to what the float model takes.
_PREPARED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cifar_resnet20": lambda x: x.transpose(0, 3, 1, 2) / 58 - 2,
    "cifar_resnet8": lambda x: x,
    "kws_dscnn": lambda x: (x.astype(np.float32) - 83) * 0.5847029,
    "mnist_lstm": lambda x: x / 255,
    "mnist_tfc_2w2a_qonnx": lambda x: x[:, None] / 255,
    "ppocr_rec": lambda x: np.repeat(x[:, None], 3, 1) / 127.5 - 1,
    "yunet": lambda x: np.repeat(x[:, None], 3, 1).repeat(2, 2).repeat(2, 3),
}


@pytest.fixture
def samples(shared_models: Path) -> Callable[..., np.ndarray]:
    """Samples of a model's own data, ready for its float model."""

    def read(model: str, count: int = 1) -> np.ndarray:
        with np.load(shared_models / model / "dev.npz") as data:
            prepared = _PREPARED[model](data["x"][:count])
        return np.ascontiguousarray(prepared, np.float32)

    return read
