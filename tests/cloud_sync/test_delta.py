"""Deltas: what was made of two blobs gives the second again, and nothing hostile gives anything."""

import io
import lzma
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_sync import delta, delta_making
from cloud_sync.delta import DeltaFailed, Header
from cloud_sync.release import Blobs, digest_of


class Pair:
    """Two blobs, the first of them in a store, and a place for a delta."""

    def __init__(self, folder: Path, base: bytes, target: bytes) -> None:
        self.base, self.target = folder / "base", folder / "target"
        self.base.write_bytes(base)
        self.target.write_bytes(target)
        self.delta = folder / "delta"
        self.blobs = Blobs(folder / "store")
        self.first = self.blobs.put(base)
        self.second, self.size = digest_of(target), len(target)

    def make(self) -> int:
        return delta_making.make(self.base, self.target, self.delta)

    def apply(self) -> None:
        delta.apply(self.blobs, self.first, self.delta, self.second, self.size)

    def craft(self, unpacked: bytes, header: Header | None = None) -> None:
        header = header or Header(size=self.size, stretches=((0, 0),))
        packed = lzma.compress(unpacked)
        self.delta.write_bytes(delta.MAGIC + msgspec.json.encode(header) + b"\n" + packed)

    def is_clean(self) -> bool:
        """Nothing but the base is in the store, under any name."""
        return [p.name for p in self.blobs.path(self.first).parent.iterdir()] == [
            self.blobs.path(self.first).name
        ]


def noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(size)


@given(
    base=st.binary(max_size=300),
    target=st.binary(max_size=300),
    common=st.binary(max_size=100),
    before=st.integers(0, 40),
)
@settings(deadline=None)
def test_any_pair_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    base: bytes,
    target: bytes,
    common: bytes,
    before: int,
) -> None:
    pair = Pair(
        tmp_path_factory.mktemp("pair"), base + common, target[:before] + common + target[before:]
    )
    pair.make()
    pair.apply()
    assert pair.blobs.read(pair.second, 1 << 20) == pair.target.read_bytes()


def test_what_moved_is_found_where_it_was(tmp_path: Path) -> None:
    weights = noise(300_000)
    pair = Pair(tmp_path, weights, b"a new layer" * 7 + weights[:200_000] + weights[210_000:])
    assert pair.make() < 0.01 * pair.size
    pair.apply()
    assert pair.blobs.has(pair.second)


def test_weights_that_moved_a_little_cost_their_lower_bytes_only(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    weights = random.normal(0, 0.1, 50_000).astype(np.float32)
    tuned = weights * (1 + random.normal(0, 1e-4, weights.size)).astype(np.float32)
    pair = Pair(tmp_path, weights.tobytes(), tuned.astype(np.float32).tobytes())
    assert delta.is_worth(pair.make(), pair.size)
    pair.apply()


def test_a_model_trained_from_scratch_is_not_worth_a_delta(tmp_path: Path) -> None:
    pair = Pair(tmp_path, noise(100_000, 1), noise(100_000, 2))
    assert not delta.is_worth(pair.make(), pair.size)


def test_a_large_pair_is_aligned_by_a_share_of_its_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_making, "MAX_ANCHORS", 1 << 14)
    weights = noise(1 << 20)
    pair = Pair(tmp_path, weights, b"shifted" + weights + weights[: 1 << 19])
    assert pair.make() < 0.55 * pair.size
    pair.apply()


def refused(pair: Pair, cause: str) -> None:
    with pytest.raises(DeltaFailed) as failed:
        pair.apply()
    assert failed.value.cause == cause
    assert pair.is_clean()


def test_a_delta_that_gives_other_bytes_is_refused(tmp_path: Path) -> None:
    pair = Pair(tmp_path, noise(1000), noise(1000, 1))
    pair.craft(b"\0" * 1000)
    refused(pair, "digest-mismatch")


def test_a_delta_that_never_ends_is_cut_at_the_size_of_the_release(tmp_path: Path) -> None:
    pair = Pair(tmp_path, noise(1000), noise(1000, 1))
    pair.craft(b"\0" * (64 << 20))
    refused(pair, "delta-damaged")


def test_a_delta_that_gives_too_little_is_refused(tmp_path: Path) -> None:
    pair = Pair(tmp_path, noise(1000), noise(1000, 1))
    pair.craft(b"\0" * 999)
    refused(pair, "delta-damaged")


@pytest.mark.parametrize(
    "header",
    [
        Header(size=999, stretches=((0, 0),)),
        Header(size=1000, stretches=((5, 0),)),
        Header(size=1000, stretches=((0, 0), (7, 1), (7, 2))),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path: Path, header: Header) -> None:
    pair = Pair(tmp_path, noise(1000), noise(1000, 1))
    pair.craft(noise(1000), header)
    refused(pair, "delta-damaged")


@pytest.mark.parametrize("shift", [-(1 << 40), -1, 1, 1 << 40])
def test_a_stretch_outside_the_base_reads_nothing_of_it(tmp_path: Path, shift: int) -> None:
    pair = Pair(tmp_path, noise(1000), noise(1000, 1))
    pair.craft(noise(1000, 1), Header(size=1000, stretches=((0, shift),)))
    if abs(shift) == 1:
        refused(pair, "digest-mismatch")
    else:
        pair.apply()
        assert pair.blobs.has(pair.second)


@given(
    damage=st.integers(0, 10_000),
    value=st.integers(0, 255),
    length=st.integers(0, 10_000),
)
@settings(deadline=None, max_examples=200)
def test_no_damage_gives_anything_but_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, damage: int, value: int, length: int
) -> None:
    pair = Pair(tmp_path_factory.mktemp("pair"), noise(3000), noise(1500) + noise(1500, 1))
    pair.make()
    data = bytearray(pair.delta.read_bytes())
    data[damage % len(data)] = value
    pair.delta.write_bytes(data[: length or None])
    try:
        pair.apply()
    except DeltaFailed:
        assert pair.is_clean()
    else:
        assert pair.blobs.read(pair.second, 1 << 20) == pair.target.read_bytes()


def test_a_damaged_base_is_said(tmp_path: Path) -> None:
    pair = Pair(tmp_path, noise(1000), noise(1000, 1))
    pair.make()
    pair.blobs.path(pair.first).write_bytes(noise(1000, 5))
    refused(pair, "base-damaged")


def test_a_dictionary_that_wants_much_memory_is_refused(tmp_path: Path) -> None:
    pair = Pair(tmp_path, noise(1000), noise(1000, 1))
    greedy = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 64 << 20}]
    packed = lzma.compress(noise(1000), format=lzma.FORMAT_XZ, filters=greedy)
    header = Header(size=1000, stretches=((0, 0),))
    pair.delta.write_bytes(delta.MAGIC + msgspec.json.encode(header) + b"\n" + packed)
    refused(pair, "delta-damaged")


_APPLY = """
import resource, sys
from pathlib import Path
from cloud_sync import delta
from cloud_sync.release import Blobs
store, base, file, target, size = sys.argv[1:]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
delta.apply(Blobs(Path(store)), base, Path(file), target, int(size))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_the_memory_that_applying_takes_does_not_grow_with_the_model(tmp_path: Path) -> None:
    weights, tail = noise(48 << 20), noise(1000, 3)
    pair = Pair(tmp_path, weights, weights[:-1000] + tail)
    other = np.frombuffer(tail, np.uint8) - np.frombuffer(weights[-1000:], np.uint8)
    pair.craft(b"\0" * (len(weights) - 1000) + other.tobytes())
    done = subprocess.run(
        [
            *(sys.executable, "-c", _APPLY, str(pair.blobs.folder), pair.first),
            *(str(pair.delta), pair.second, str(pair.size)),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) << 10 <= delta.MAX_MEMORY_BYTES


def test_subtracting_reads_the_base_where_the_stretch_says() -> None:
    base = io.BytesIO(bytes(range(100)))
    header = Header(size=4, stretches=((0, 10), (2, 50)))
    assert delta.subtract(bytes([10, 12, 52, 54]), base, 100, 0, header) == bytes([0, 1, 0, 1])
