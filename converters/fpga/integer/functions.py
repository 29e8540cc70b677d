"""Functions of one value, which gateware looks up in a table: operator -> its float function."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]
_SELU_ALPHA, _SELU_GAMMA = 1.6732632423543772, 1.0507009873554805


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.asarray(0.5 * (np.tanh(0.5 * x) + 1))


def _hard_sigmoid(alpha: float, beta: float) -> Function:
    return lambda x: np.clip(alpha * x + beta, 0, 1)


def _below(x: np.ndarray, below: np.ndarray) -> np.ndarray:
    return np.where(x < 0, below, x)


FUNCTIONS: dict[str, Callable[[dict[str, Any], Sequence[np.ndarray]], Function]] = {
    "Abs": lambda _a, _c: np.abs,
    "Elu": lambda a, _c: lambda x: _below(x, a.get("alpha", 1.0) * np.expm1(np.minimum(x, 0))),
    "HardSigmoid": lambda a, _c: _hard_sigmoid(a.get("alpha", 0.2), a.get("beta", 0.5)),
    "HardSwish": lambda _a, _c: lambda x: x * _hard_sigmoid(1 / 6, 0.5)(x),
    "LeakyRelu": lambda a, _c: lambda x: _below(x, a.get("alpha", 0.01) * x),
    "Selu": lambda a, _c: (
        lambda x: (
            a.get("gamma", _SELU_GAMMA)
            * _below(x, a.get("alpha", _SELU_ALPHA) * np.expm1(np.minimum(x, 0)))
        )
    ),
    "Sigmoid": lambda _a, _c: _sigmoid,
    "Softplus": lambda _a, _c: lambda x: np.logaddexp(0, x),
    "Softsign": lambda _a, _c: lambda x: x / (1 + np.abs(x)),
    "Tanh": lambda _a, _c: np.tanh,
}
