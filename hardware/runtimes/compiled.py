"""What a runtime made of a model on this machine, kept so that the next start is quicker.

A file's name says what it was made with (runtime, version, and a key over processor and
options) and ends in the sha256 of its own bytes: one that was damaged is removed and made
again, one of another version is never found.
"""

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

_TELLING = ("model name", "flags", "Features", "CPU implementer", "CPU part", "CPU variant", "isa")


class Compiled:
    """The files of one runtime and version for one model, in a folder of that model.

    Args:
        folder: the model's folder; made when something is kept.
        runtime: the runtime's name and version.
        options: whatever else decides what is compiled; the processor always does.
    """

    def __init__(self, folder: Path, runtime: tuple[str, str], options: str = "") -> None:
        name, version = runtime
        said = f"{version}\n{options}\n{_processor()}"
        self._folder = folder
        self._runtime = f"{name}-"
        self._version = f"{name}-{version}-"
        self._key = f"{name}-{version}-{hashlib.sha256(said.encode()).hexdigest()[:16]}-"

    def find(self) -> Path | None:
        """The file that was kept, whole; None where there is none."""
        with contextlib.suppress(OSError):
            for file in sorted(self._folder.glob(f"{self._key}*")):
                with file.open("rb") as stream:
                    found = hashlib.file_digest(stream, "sha256").hexdigest()
                if file.name == self._key + found:
                    return file
                log.warning("%s is damaged; it is made again", file.name)
                file.unlink(missing_ok=True)
        return None

    def keep(self, write: Callable[[Path], object]) -> Path | None:
        """Keep what `write` writes to the path that it is given; None where the disk will not.

        What other versions of the runtime made goes.
        """
        beside = ""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, beside = tempfile.mkstemp(dir=self._folder, prefix=".new-")
            os.close(handle)
            write(Path(beside))
            with open(beside, "rb") as stream:
                made = self._key + hashlib.file_digest(stream, "sha256").hexdigest()
                os.fsync(stream.fileno())
            os.replace(beside, self._folder / made)
            self._prune(made)
        except OSError as error:
            log.warning("a compiled model is not kept: %s", error)
            return None
        else:
            return self._folder / made
        finally:
            if beside:
                Path(beside).unlink(missing_ok=True)

    def _prune(self, made: str) -> None:
        for file in self._folder.glob(f"{self._runtime}*"):
            of_another_version = not file.name.startswith(self._version)
            if of_another_version or (file.name.startswith(self._key) and file.name != made):
                file.unlink(missing_ok=True)


@cache
def _processor() -> str:
    """What of /proc/cpuinfo tells one kind of processor from another."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(sorted({line for line in lines if line.startswith(_TELLING)}))
