"""Sound in overlapping windows, from a file and from a microphone."""

import time
import wave
from pathlib import Path

import numpy as np
import pytest

from edge_agent.sources import open_source
from edgeml.errors import DeviceError
from tests import needs
from tests.edge_agent.processes import eventually
from tests.edge_agent.sources.seen import Seen, config

RATE = 8000


def record(path: Path, samples: np.ndarray, rate: int = RATE, width: int = 2) -> Path:
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(samples.astype("<i2").tobytes())
    return path


def windows(uri: str, fps: float) -> list[np.ndarray]:
    reader = open_source(config(uri, fps=fps))
    found = []
    while (one := reader.read()) is not None:
        found.append(one[1])
    reader.close()
    return found


def test_windows_overlap_and_none_is_missing_or_shared(tmp_path: Path) -> None:
    ramp = np.arange(RATE, dtype=np.int16)
    path = record(tmp_path / "ramp.wav", ramp)
    found = windows(f"wav://{path}?rate={RATE}&window=0.5", fps=8.0)
    expected = [ramp[start : start + 4000] for start in range(0, 4001, 1000)]
    assert len(found) == len(expected)
    for ours, wanted in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, wanted, strict=True)


def test_of_two_channels_the_first_is_taken(tmp_path: Path) -> None:
    both = np.stack([np.full(RATE, 5), np.full(RATE, 9)], axis=1)
    path = record(tmp_path / "stereo.wav", both)
    assert np.unique(windows(f"wav://{path}?rate={RATE}", fps=1.0)[0]).tolist() == [5]


def test_a_hop_longer_than_the_window_leaves_out_what_lies_between(tmp_path: Path) -> None:
    path = record(tmp_path / "ramp.wav", np.arange(RATE, dtype=np.int16))
    found = windows(f"wav://{path}?rate={RATE}&window=0.1", fps=2.0)
    assert [one[0] for one in found] == [0, 4000]


def test_sound_is_played_at_its_own_pace(tmp_path: Path) -> None:
    path = record(tmp_path / "ramp.wav", np.arange(RATE, dtype=np.int16))
    begun = time.monotonic()
    seen = Seen(config(f"wav://{path}?rate={RATE}&window=0.5", fps=20.0, loop=False))
    eventually(lambda: seen.source.ended)
    assert len(seen.frames) == 11
    assert seen.frames[-1].captured - begun >= 10 / 20 * 0.95
    seen.stop()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"RIFF no sound"), "cannot be opened"),
        (lambda path: record(path, np.zeros(99)), "shorter than a window"),
        (lambda path: record(path, np.zeros(RATE), rate=44100), "16 bits at 44100 Hz"),
        (lambda path: record(path, np.zeros(RATE), width=1), "8 bits"),
    ],
)
def test_a_sound_that_cannot_be_used_is_a_sentence(tmp_path: Path, make, message: str) -> None:  # noqa: ANN001
    make(tmp_path / "a.wav")
    with pytest.raises(DeviceError, match=message):
        windows(f"wav://{tmp_path / 'a.wav'}?rate={RATE}", fps=2.0)


@pytest.fixture
def alsa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A device of ALSA that records a ramp again and again, without a sound card."""
    needs.program("arecord", "alsa-utils")
    ramp = np.arange(-16000, 16000, dtype=np.int16)
    (tmp_path / "in.raw").write_bytes(ramp.tobytes() * 20)
    (tmp_path / "alsa.conf").write_text(
        'pcm.silence { type null }\npcm.ramp { type file slave.pcm "silence" file "/dev/null" '
        f'infile "{tmp_path / "in.raw"}" format "raw" }}\n'
    )
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "alsa.conf"))
    return ramp


def test_a_microphone_is_heard_through_alsa(alsa: np.ndarray) -> None:
    seen = Seen(config("alsa:ramp?rate=16000&window=0.5", fps=4.0))
    eventually(lambda: len(seen.frames) >= 3)
    seen.stop()
    np.testing.assert_array_equal(seen.frames[0].image, alsa[:8000], strict=True)
    np.testing.assert_array_equal(seen.frames[1].image, alsa[4000:12000], strict=True)


def test_a_microphone_that_is_not_there_says_what_alsa_says(alsa: np.ndarray) -> None:
    seen = Seen(config("alsa:nothing"))
    eventually(lambda: seen.source.status().state == "lost")
    assert "gives no sound. arecord:" in seen.source.error
    assert "arecord -L" in seen.source.error
    seen.stop()
