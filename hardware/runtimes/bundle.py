"""Several files of one model in one: a zip archive without compression, made the same each time.

A variant has one model file. What needs more (an OpenVINO IR is two, an RKNN file does not say
what its tensors are called) is bundled; the first entry's name tells the format.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from edgeml.errors import ModelError

_EPOCH = (1980, 1, 1, 0, 0, 0)
_MAX_FILES = 4
_MAX_BYTES = 4 << 30


def pack(files: Mapping[str, bytes]) -> bytes:
    """A bundle of files by name, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


def unpack(path: Path) -> dict[str, bytes]:
    """The files of a bundle by name.

    Raises:
        ModelError: it is damaged, compressed or too large.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            plain = all(e.compress_type == zipfile.ZIP_STORED for e in entries)
            if not plain or len(entries) > _MAX_FILES:
                raise zipfile.BadZipFile(f"it has {len(entries)} entries, or compressed ones")
            if sum(entry.file_size for entry in entries) > _MAX_BYTES:
                raise zipfile.BadZipFile(f"it holds more than {_MAX_BYTES} bytes")
            return {entry.filename: archive.read(entry) for entry in entries}
    # Whatever zipfile raises on what it cannot read: encrypted, cut off, of another method.
    except (OSError, zipfile.BadZipFile, ValueError, RuntimeError, EOFError) as error:
        raise ModelError(
            f"{path.name} is no whole bundle.",
            why=f"{error or 'It ends too soon'}.",
            fix="Fetch the release again, or convert the model again.",
        ) from error
