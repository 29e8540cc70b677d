"""What `module:attribute` means: code of the user's own, found from the current folder."""

import importlib
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeml.errors import EdgemlError, UserError

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def names_attribute(text: str) -> bool:
    """Whether a text has the form `module:attribute`."""
    return _NAME.fullmatch(text) is not None


def attribute_of(name: str) -> Any:
    """Import the module and return its attribute; the current folder is searched first.

    Raises:
        UserError: the name is malformed, the module cannot be imported or lacks the attribute.
    """
    if not names_attribute(name):
        raise UserError(f"{name!r} names nothing.", why="Its form is module:attribute.")
    module_name, _, path = name.partition(":")
    try:
        with _current_folder_first():
            found: Any = importlib.import_module(module_name)
    except EdgemlError:
        raise
    except ModuleNotFoundError as error:
        raise UserError(
            f"There is no module {error.name} for {name}.",
            why=f"It is neither installed nor in {Path.cwd()}.",
            fix="Start the command in the module's folder, or set PYTHONPATH.",
        ) from None
    except Exception as error:  # importing runs the module, which may raise anything
        raise UserError(
            f"The module {module_name} cannot be imported.", why=f"{cause_of(error)}."
        ) from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise UserError(
                f"There is no {path} in the module {module_name}.",
                why=f"It is {getattr(found, '__file__', 'built in')}.",
            )
        found = getattr(found, part)
    return found


def cause_of(error: BaseException) -> str:
    """An error of foreign code in one line, with the place it came from."""
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, SyntaxError):
        return said
    frames = traceback.extract_tb(error.__traceback__)
    return f"{said} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


@contextmanager
def _current_folder_first() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(here)
