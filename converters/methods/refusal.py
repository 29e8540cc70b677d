"""What a method says when a model cannot be quantized its way: a refusal, never a no-op."""

from collections.abc import Iterator
from contextlib import contextmanager

from converters.methods.quiet import quiet
from edgeml.errors import ModelError


class NotQuantizableError(ModelError):
    """The model is good, but cannot be quantized this way: the candidate is refused."""


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn what onnx and onnxruntime raise on graphs they were not written for into a refusal.

    Args:
        what: the participle for the sentence "The model cannot be …".

    Raises:
        NotQuantizableError: anything but a `ModelError` was raised inside.
    """
    try:
        with quiet():
            yield
    except ModelError:
        raise
    except Exception as error:  # theirs derive only from Exception, and nothing else runs here
        raise NotQuantizableError(f"The model cannot be {what}.", why=_plain(error)) from error


def _plain(error: Exception) -> str:
    """Onnxruntime's sentence without its codes and source paths."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    words = lines[0].split(" : ")[-1]
    return words.rsplit("&) ", 1)[-1].rstrip(". ") + "."
