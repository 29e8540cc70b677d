"""Keep what onnxruntime's quantizers say to the root logger from the user's terminal."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Drop warnings to the root logger, and keep them from configuring it.

    They speak of tensors that execution judges; `logging.warning` would add a handler for
    good where there is none.
    """
    root = logging.getLogger()
    handler = logging.NullHandler()
    disabled = root.manager.disable
    root.addHandler(handler)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.removeHandler(handler)
