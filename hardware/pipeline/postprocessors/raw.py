"""The model's outputs as they are, for an application that reads them itself."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from hardware.pipeline.postprocessors.interface import (
    Array,
    PostProcessor,
    Reader,
    Seen,
    Settings,
)
from hardware.pipeline.results import Raw


class Outputs(PostProcessor, frozen=True, kw_only=True, tag="raw"):
    """Copies of all outputs: a session may write into its own at the next inference."""

    task: ClassVar[str] = "raw"
    uses: ClassVar[frozenset[str]] = frozenset()

    def reader(self, settings: Settings) -> Reader:
        """The reader of one pipeline."""
        del settings

        def read(outputs: Sequence[Array], _seen: Seen) -> Raw:
            return Raw(outputs=tuple(np.array(values) for values in outputs))

        return read
