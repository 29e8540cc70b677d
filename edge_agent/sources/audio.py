"""Sound: windows of the last second or so, from a WAV file or a microphone.

A window is int16 [samples] of one channel. Windows overlap: the mailbox keeps the newest, and
what a dropped one held is in the next.
"""

import subprocess
import threading
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloud_sync.messages import SourceConfig
from edge_agent.sources.interface import Address, Kind, address
from edge_agent.sources.pipes import Stopped, fill
from edgeml.errors import DeviceError

OPTIONS = ("rate", "window")
DEFAULT_RATE = 16_000
DEFAULT_WINDOW_S = 1.0
DEFAULT_FPS = 2.0
SAMPLE_BYTES = 2

Samples = NDArray[np.int16]


class _Windows:
    """The last samples, moved on hop by hop."""

    def __init__(self, where: Address, fps: float) -> None:
        self.rate = int(where.number("rate", DEFAULT_RATE, 1000, 192_000))
        seconds = where.number("window", DEFAULT_WINDOW_S, 0.01, 60)
        self._samples: Samples = np.zeros(max(1, round(seconds * self.rate)), np.int16)
        self._hop = max(1, round(self.rate / fps))
        self._missing = self._samples.size

    @property
    def wanted(self) -> int:
        """How many samples the next window still needs."""
        return self._missing

    def add(self, samples: Samples) -> Samples | None:
        """Take samples, at most as many as wanted; a copy of the window when it is full."""
        kept = samples[-self._samples.size :]
        self._samples[: self._samples.size - kept.size] = self._samples[kept.size :]
        self._samples[self._samples.size - kept.size :] = kept
        self._missing -= samples.size
        if self._missing > 0:
            return None
        self._missing = self._hop
        return self._samples.copy()


class WavReader:
    """A WAV file of 16 bit; the first of its channels."""

    kind: Kind = "recorded"

    def __init__(self, where: Address, fps: float) -> None:
        self.fps = fps
        self._windows = _Windows(where, fps)
        path = Path(where.path)
        try:
            self._file = wave.open(str(path), "rb")  # noqa: SIM115 -- open until closed
        except (OSError, EOFError, wave.Error) as error:
            raise DeviceError(f"The sound {path} cannot be opened.", why=f"{error}.") from error
        self._channels = self._file.getnchannels()
        found = (self._file.getsampwidth(), self._file.getframerate())
        if found != (SAMPLE_BYTES, self._windows.rate):
            self._file.close()
            raise DeviceError(
                f"The sound {path} does not fit.",
                why=f"It has {found[0] * 8} bits at {found[1]} Hz, wanted are 16 at "
                f"{self._windows.rate}.",
                fix="Convert it, or name its rate: wav:///path?rate=44100.",
            )
        self._count = 0

    def read(self) -> tuple[float, NDArray[Any]] | None:
        """The next window; what is left at the end and makes none is left out."""
        while True:
            data = self._file.readframes(self._windows.wanted)
            data = data[
                : len(data) // (SAMPLE_BYTES * self._channels) * SAMPLE_BYTES * self._channels
            ]
            if not data:
                break
            samples = np.frombuffer(data, "<i2").astype(np.int16)
            window = self._windows.add(samples.reshape(-1, self._channels)[:, 0])
            if window is not None:
                self._count += 1
                return time.monotonic(), window
        if self._count == 0:
            raise DeviceError("The sound is shorter than a window.")
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class MicrophoneReader:
    """What ALSA captures, by `arecord` in a process of its own: a driver cannot take this one."""

    kind: Kind = "live"

    def __init__(self, where: Address, fps: float, stop: threading.Event) -> None:
        self.fps = fps
        self._stop = stop
        self._windows = _Windows(where, fps)
        device = where.path or "default"
        wanted = f"-q -t raw -f S16_LE -c 1 -r {self._windows.rate}".split()
        try:
            self._child = subprocess.Popen(
                ["arecord", *wanted, "-D", device], stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise DeviceError(
                "A microphone needs the program arecord.",
                why=f"{error.strerror}.",
                fix="apt-get install alsa-utils.",
            ) from error
        self._device = device

    def read(self) -> tuple[float, NDArray[Any]] | None:
        """The next window."""
        assert self._child.stdout is not None
        while True:
            # Little at a time, so that the time of capture is that of the last sample.
            data = bytearray(SAMPLE_BYTES * min(self._windows.wanted, self._windows.rate // 10))
            try:
                if not fill(self._child.stdout.fileno(), memoryview(data), self._stop):
                    break
            except Stopped:
                return None
            window = self._windows.add(np.frombuffer(data, "<i2").astype(np.int16))
            if window is not None:
                return time.monotonic(), window
        raise DeviceError(
            f"The microphone {self._device} gives no sound.",
            why=self._said(),
            fix="arecord -L lists what there is.",
        )

    def close(self) -> None:
        """Let the microphone go."""
        self._child.kill()
        self._child.communicate()

    def _said(self) -> str:
        """The last line of what arecord complained of."""
        self._child.kill()
        said = self._child.communicate()[1].decode(errors="replace").strip().splitlines()
        return f"{said[-1]}." if said else ""


def open_wav(config: SourceConfig, _stop: threading.Event) -> WavReader:
    """`wav:///path/to/sound.wav?rate=16000&window=1.0`."""
    return WavReader(address(config.uri, OPTIONS), config.fps or DEFAULT_FPS)


def open_microphone(config: SourceConfig, stop: threading.Event) -> MicrophoneReader:
    """`alsa:hw:1,0?rate=16000&window=1.0`; `alsa:` is the system's own choice."""
    return MicrophoneReader(address(config.uri, OPTIONS), config.fps or DEFAULT_FPS, stop)


def check_microphone(config: SourceConfig) -> None:
    """Refuse options that cannot be meant."""
    _Windows(address(config.uri, OPTIONS), config.fps or DEFAULT_FPS)
