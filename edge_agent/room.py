"""Whether a file system has room for what is to be written, asked before the first byte comes."""

import os
from pathlib import Path

from edge_agent.shortage import Shortage

SPARE_BYTES = 8 << 20
SPARE_FILES = 16


def require_room(folder: Path, size: int, files: int, what: str = "the release") -> None:
    """Check that a folder can take so many bytes in so many files, with some to spare.

    Raises:
        Shortage: its file system is read-only, or has too few bytes or inodes left.
    """
    found = os.statvfs(folder)
    if found.f_flag & os.ST_RDONLY:
        raise Shortage(
            f"There is no storing {what}: the file system is read-only.",
            why=f"{folder} is mounted so; a disk that fails is remounted so by the system.",
            fix="Look at the kernel's log; remount it for writing.",
        )
    free = found.f_bavail * found.f_frsize
    if free < size + SPARE_BYTES:
        raise Shortage(
            f"The disk has no room for {what}.",
            why=f"{size} bytes are needed and {SPARE_BYTES} to spare, {free} are free.",
            fix=f"Free some space on the disk of {folder}.",
        )
    # A file system without a fixed number of them says 0 of 0.
    if found.f_files and found.f_favail < files + SPARE_FILES:
        raise Shortage(
            f"The disk has no inodes left for {what}.",
            why=f"{files} files are to be made and {SPARE_FILES} to spare, "
            f"{found.f_favail} inodes are free.",
            fix=f"Remove small files from the disk of {folder}.",
        )
