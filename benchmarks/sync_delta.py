"""Deltas beside zstd patch-from, bsdiff and content-defined chunks, on pairs that fleets have.

`delta.<pair>.bytes_vs_full` is what a device fetches over what the whole model has; each peer has
a row of its own. Applying is measured on a larger pair, each method in a process of its own.
"""

import hashlib
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import bsdiff4
import numpy as np
from backports import zstd
from fastcdc import fastcdc

from benchmarks.delta_pairs import pairs
from benchmarks.measure import MIN_ROUNDS, Row
from cloud_sync import delta_making
from cloud_sync.delta import WORTH

CHUNK = (1 << 10, 1 << 12, 1 << 15)
ZSTD_LEVEL = 19
LARGE = 16 << 20

_Size = Callable[[bytes, bytes], int]


def rows(quick: bool) -> Iterator[Row]:
    """The delta part of `benchmarks.sync`."""
    for name, before, after in pairs(quick):
        full = len(after)
        others = {peer: size(before, after) / full for peer, size in PEERS.items()}
        best = min(others, key=others.__getitem__)
        ours = _ours(before, after) / full
        yield Row(
            metric=f"delta.{name}.bytes_vs_full",
            value=ours,
            unit="of the model",
            peer=best,
            peer_value=others[best],
            ratio=ours / others[best] if others[best] else None,
            goal="" if ours <= WORTH else f"not offered: above {WORTH:g}",
        )
        for peer, value in others.items():
            yield Row(metric=f"delta.{name}.{peer}.bytes_vs_full", value=value, unit="of the model")
    yield from _applying(MIN_ROUNDS if quick else 3 * MIN_ROUNDS)


def _ours(before: bytes, after: bytes) -> int:
    with tempfile.TemporaryDirectory() as folder:
        base, target, delta = (Path(folder) / name for name in ("base", "target", "delta"))
        base.write_bytes(before)
        target.write_bytes(after)
        return delta_making.make(base, target, delta)


def _patch_from(before: bytes, after: bytes) -> bytes:
    """As `zstd --patch-from` does: the earlier file is a prefix, and the window spans both."""
    parameter = zstd.CompressionParameter
    return zstd.compress(
        after,
        options={
            parameter.compression_level: ZSTD_LEVEL,
            parameter.window_log: min(31, (len(before) + len(after)).bit_length()),
            parameter.enable_long_distance_matching: 1,
        },
        zstd_dict=zstd.ZstdDict(before, is_raw=True).as_prefix,
    )


def _chunks(before: bytes, after: bytes) -> int:
    """The bytes of the chunks that the device lacks, each compressed."""
    have = set(_cut(before))
    return sum(size for digest, size in _cut(after).items() if digest not in have)


def _cut(data: bytes) -> dict[bytes, int]:
    pieces = [data[c.offset : c.offset + c.length] for c in fastcdc(data, *CHUNK)]
    return {hashlib.sha256(p).digest(): len(zstd.compress(p, ZSTD_LEVEL)) for p in pieces}


PEERS: dict[str, _Size] = {
    "zstd": lambda before, after: len(_patch_from(before, after)),
    "bsdiff": lambda before, after: len(bsdiff4.diff(before, after)),
    "chunks": _chunks,
}


def _applying(rounds: int) -> Iterator[Row]:
    """What it costs a device to put 16 MB of finely tuned float weights together."""
    random = np.random.default_rng(1)
    weights = random.normal(0, 0.1, LARGE // 4).astype(np.float32)
    steps = 1 + random.normal(0, 1e-4, weights.size).astype(np.float32)
    before, after = weights.tobytes(), (weights * steps).astype(np.float32).tobytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "base").write_bytes(before)
        (folder / "target").write_bytes(after)
        delta_making.make(folder / "base", folder / "target", folder / "ours")
        (folder / "zstd").write_bytes(_patch_from(before, after))
        found: dict[str, list[tuple[float, float]]] = {"ours": [], "zstd": []}
        for _ in range(rounds):
            for method, runs in found.items():
                runs.append(_apply(folder, method))
    for index, (metric, unit) in enumerate(
        (("delta.apply.ms_per_mb", "ms/MB"), ("delta.apply.peak_mb", "MB"))
    ):
        ours, peer = (statistics.median(run[index] for run in found[m]) for m in ("ours", "zstd"))
        yield Row(
            metric=metric,
            value=ours,
            unit=unit,
            peer="zstd",
            peer_value=peer,
            ratio=ours / peer,
            n=rounds,
        )


_APPLY = """
import hashlib, resource, sys, time
from pathlib import Path
folder, method = Path(sys.argv[1]), sys.argv[2]
target = "sha256:" + hashlib.sha256((folder / "target").read_bytes()).hexdigest()
size = (folder / "target").stat().st_size
if method == "ours":
    from cloud_sync.delta import apply
    from cloud_sync.release import Blobs
    blobs = Blobs(folder / "store")
    base = blobs.put_file(folder / "base")
else:
    from backports import zstd
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1])
open("/proc/self/clear_refs", "w").write("5")
before, begun = peak(), time.perf_counter()
if method == "ours":
    apply(blobs, base, folder / "ours", target, size)
else:
    known = zstd.ZstdDict((folder / "base").read_bytes(), is_raw=True).as_prefix
    options = {zstd.DecompressionParameter.window_log_max: 31}
    machine = zstd.ZstdDecompressor(known, options)
    digest = hashlib.sha256()
    with open(folder / "zstd", "rb") as packed, open(folder / "made", "wb") as made:
        while not machine.eof:
            piece = machine.decompress(packed.read(65536) if machine.needs_input else b"", 65536)
            digest.update(piece)
            made.write(piece)
    assert "sha256:" + digest.hexdigest() == target
print((time.perf_counter() - begun) * 1e3 / (size / 1e6), (peak() - before) / 1e3)
if method == "ours":
    blobs.remove(target)
"""


def _apply(folder: Path, method: str) -> tuple[float, float]:
    """Milliseconds for each MB of the model, and MB of memory at the peak."""
    done = subprocess.run(
        [sys.executable, "-c", _APPLY, str(folder), method],
        capture_output=True,
        text=True,
        check=True,
    )
    time_ms, memory_mb = map(float, done.stdout.split())
    return time_ms, memory_mb
