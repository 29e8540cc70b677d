"""Samples from `module:function`: called anew for each pass, yields samples or pairs.

    # data.py in the current folder; then: edgeml convert ... --calibration data:calibration
    def calibration():
        for path in sorted(Path("frames").glob("*.npy")):
            yield np.load(path)

A pair is (sample, label) with a label in any form that `converters.sources.labels.stacked`
knows; a sample is an array, or for a model with several inputs a dict of arrays by input name.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from converters.attribute import attribute_of, cause_of
from converters.sources.labels import Labels, stacked
from edgeml.errors import EdgemlError, ModelError

_PAIR = 2


class FunctionSource:
    """What the function that `name` (`module:function`) means yields."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._function: Callable[[], Any] = attribute_of(name)
        if not callable(self._function):
            raise ModelError(
                f"The data {name} cannot be used.",
                why=f"It is a {type(self._function).__name__}, not a function.",
            )

    def samples(self) -> Iterator[tuple[Any, Any]]:
        """One pass: the function is called and its samples are checked to be arrays."""
        for index, item in enumerate(self._items()):
            sample, label = item if _is_pair(item) else (item, None)
            yield self._arrays(index, sample), label

    def labels(self, seen: list[Any]) -> Labels | None:
        """What came with the samples."""
        return stacked(self._name, seen)

    def _items(self) -> Iterator[Any]:
        try:
            made = self._function()
        except EdgemlError:
            raise
        except Exception as error:  # a user's function may raise anything
            raise self._failed(error) from error
        try:
            items = iter(made)
        except TypeError:
            raise ModelError(
                f"The data {self._name} cannot be used.",
                why=f"The function returns {made!r:.40}, not samples one by one.",
                fix="Yield each sample, or each pair of a sample and its label.",
            ) from None
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except EdgemlError:
                raise
            except Exception as error:
                raise self._failed(error) from error
            yield item

    def _failed(self, error: Exception) -> ModelError:
        return ModelError(f"The function {self._name} failed.", why=f"{cause_of(error)}.")

    def _arrays(self, index: int, sample: Any) -> Any:
        if isinstance(sample, Mapping):
            return {str(name): self._array(index, value) for name, value in sample.items()}
        return self._array(index, sample)

    def _array(self, index: int, value: Any) -> np.ndarray:
        try:
            array = np.asarray(value, order="C")
        except ValueError:
            array = np.array(None)
        if array.dtype.kind not in "uifb" or array.size == 0:
            raise ModelError(
                f"Sample {index} of {self._name} cannot be used.",
                why=f"It is {array.dtype}, {list(array.shape)}; a sample is an array of numbers.",
            )
        return array


def _is_pair(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == _PAIR
