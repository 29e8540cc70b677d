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


@pytest.fixture
def samples(shared_models: Path) -> Callable[..., np.ndarray]:
    """Samples of a model's own data, as they are stored or scaled to float32."""

    def read(model: str, count: int = 1, *, dtype: str = "float32") -> np.ndarray:
        with np.load(shared_models / model / "dev.npz") as data:
            x = data["x"][:count]
        return x.astype(np.float32) / 255 if dtype == "float32" else x.astype(dtype)

    return read
