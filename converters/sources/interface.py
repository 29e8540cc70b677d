"""What a source of samples offers to a `Dataset`."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from converters.sources.labels import Labels

Sample = Any  # an array, or for a model with several inputs a mapping of arrays by input name


class Source(Protocol):
    """Samples that can be gone over again and again, always the same in the same order."""

    def samples(self) -> Iterator[tuple[Sample, Any]]:
        """One pass: each sample with its label; None where labels are read apart or missing.

        Raises:
            ModelError: the source is missing, damaged or no data.
        """
        ...

    def labels(self, seen: list[Any]) -> Labels | None:
        """All labels, given those that a pass yielded.

        Raises:
            ModelError: they do not fit the samples.
        """
        ...


def named(sample: Sample) -> Mapping[str, np.ndarray]:
    """A sample's arrays by name; `x` is the name of an only one."""
    return sample if isinstance(sample, Mapping) else {"x": sample}
