"""What memory can still be had, from a kernel's tree and from this machine."""

from pathlib import Path

import pytest

from edge_agent.memory import available_bytes, require_below, require_memory, rss_bytes
from edgeml.errors import DeviceError


def tree(root: Path, available_kb: int, **groups: tuple[str, int, int]) -> Path:
    """A kernel's files: the system's memory, and of each group limit, use and page cache."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:  {available_kb} kB\n")
    (root / "proc/self/cgroup").write_text(f"0::/{'/'.join(groups)}\n")
    folder = root / "sys/fs/cgroup"
    for name, (limit, used, cached) in groups.items():
        folder /= name
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")
    return root


def test_the_smallest_limit_on_the_way_up_decides(tmp_path: Path) -> None:
    root = tree(tmp_path, 1000, system=("600000", 200000, 50000), agent=("max", 100000, 0))
    assert available_bytes(root) == 450000


def test_without_limits_the_system_decides(tmp_path: Path) -> None:
    assert available_bytes(tree(tmp_path, 1000)) == 1024000


def test_a_kernel_that_tells_nothing_refuses_nothing(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
    require_memory(1 << 60, "anything", tmp_path)


def test_this_machine_has_some() -> None:
    assert (available_bytes() or 0) > 0
    assert rss_bytes() > 1 << 20


def test_too_little_is_refused_with_both_figures(tmp_path: Path) -> None:
    root = tree(tmp_path, 64 << 10)
    require_memory(64 << 20, "a second model", root)
    with pytest.raises(DeviceError, match=r"no room for a second model.* 65 MB .* 64 MB can"):
        require_memory(65 << 20, "a second model", root)
    with pytest.raises(DeviceError, match="memory_mb is 100"):
        require_below(100 << 20, 101 << 20)
