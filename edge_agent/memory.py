"""What memory this process has, and what the device could still give it."""

import os
from pathlib import Path

from edge_agent.shortage import Shortage

_CGROUP = "sys/fs/cgroup"


def rss_bytes() -> int:
    """This process's resident memory; 0 where the kernel does not tell."""
    try:
        with open("/proc/self/statm") as stream:
            return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def available_bytes(root: Path = Path("/")) -> int | None:
    """What could be had without swapping: the system's, or less where a control group limits it.

    None where the kernel does not tell.
    """
    found = [value for value in (_of_system(root), _of_group(root)) if value is not None]
    return min(found) if found else None


def require_memory(needed: int, what: str, root: Path = Path("/")) -> None:
    """Check that memory can still be had.

    Raises:
        Shortage: it cannot.
    """
    free = available_bytes(root)
    if free is not None and free < needed:
        raise Shortage(
            f"The memory has no room for {what}.",
            why=f"{needed >> 20} MB are needed, {free >> 20} MB can be had.",
            fix="End other programs on the device, or roll out a smaller variant.",
        )


def require_below(ceiling: int, expected: int) -> None:
    """Check what this process would take against its configured ceiling.

    Raises:
        Shortage: it would take more.
    """
    if expected > ceiling:
        raise Shortage(
            "The agent's memory ceiling has no room for a second model.",
            why=f"It would take {expected >> 20} MB, memory_mb is {ceiling >> 20}.",
            fix="Raise memory_mb in agent.toml, or roll out a smaller variant.",
        )


def _of_system(root: Path) -> int | None:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            number = line.split()[1]
            return int(number) * 1024 if number.isdecimal() else None
    return None


def _of_group(root: Path) -> int | None:
    """What every limit on the way up leaves (cgroup v2)."""
    path = ""
    for line in _read(root / "proc/self/cgroup").splitlines():
        if line.startswith("0::"):
            path = line.removeprefix("0::").strip("/")
    left: int | None = None
    group = root / _CGROUP / path
    while group.is_relative_to(root / _CGROUP):
        limit, used = (_read(group / f"memory.{name}").strip() for name in ("max", "current"))
        if limit.isdecimal() and used.isdecimal():
            # The page cache counts as used, and is given back when it is needed.
            free = max(0, int(limit) - int(used) + _cached(group))
            left = free if left is None else min(left, free)
        group = group.parent
    return left


def _cached(group: Path) -> int:
    for line in _read(group / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file" and value.isdecimal():
            return int(value)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
