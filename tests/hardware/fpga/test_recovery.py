"""What fails on the way to an FPGA, or in it, is recovered from once, or is an error that says why.

The engine's pins are clocked in Verilator; a pseudo-terminal leads there, opened by pyserial.
"""

import math
import os
import threading
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from edgeml.errors import DeviceError
from hardware.fpga import registers as at
from hardware.fpga.artifact import Artifact, HostSide
from hardware.fpga.driver import Driver
from hardware.fpga.program import Program
from hardware.fpga.simulated import SimulatedEngine
from hardware.fpga.sources import build_of
from hardware.fpga.turns import turn
from hardware.runtimes.fpga import FpgaRuntime, FpgaSession
from hardware.runtimes.interface import Session, SessionOptions
from tests.hardware.fpga.far_end import SILENCE, FarEnd, serial_engine
from tests.hardware.fpga.networks import (
    CHANNELS,
    HEIGHT,
    SIZE,
    WIDTH,
    add_one,
    codes,
    expected,
    in_two_banks,
    slow,
    twice,
)

_BYTES = HEIGHT * WIDTH * CHANNELS


class Cable:
    """A pseudo-terminal, at a path that stays, whose other end is the engine's UART.

    Where `loaded` names a file, the FPGA is blank and says nothing until that file is there. After
    `left` more bytes somebody tears the cable out; the engine keeps its power.
    """

    def __init__(self, model: Path, path: Path) -> None:
        self.path = path
        self.loaded: Path | None = None
        self.left = math.inf
        self._model = model
        self.plug()

    def plug(self, *, is_powered: bool = False) -> None:
        """Put it in: a new terminal and, unless it has power, an engine that was just powered."""
        self._inner, outer = os.openpty()
        tty.setraw(outer)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(outer))
        self._outer = outer
        if not is_powered:
            self._engine = FarEnd(self._model, is_spi=False)
        self._thread = threading.Thread(target=self._carry, args=(self._inner,))
        self._stopped = threading.Event()
        self._thread.start()

    def cut(self) -> None:
        """Pull it out."""
        self._stopped.set()
        os.close(self._outer)
        self._thread.join()
        os.close(self._inner)
        self._engine.close()

    def _carry(self, inner: int) -> None:
        os.set_blocking(inner, False)
        while not self._stopped.wait(0.001):
            if self.loaded and not self.loaded.exists():
                continue
            try:
                sent = os.read(inner, int(min(self.left, 4096)))
                self._engine.write(sent)
                self.left -= len(sent)
                if not self.left:
                    self._stopped.set()
                    os.close(self._outer)
                    os.close(inner)
                    return
            except (BlockingIOError, OSError):
                self._engine.pause(SILENCE // 10)
            while answer := self._engine.read(1):
                os.write(inner, answer)


@pytest.fixture
def cable(models: Path, tmp_path: Path) -> Iterator[Cable]:
    made = Cable(serial_engine(SIZE, models, is_spi=False), tmp_path / "tty")
    yield made
    if not made._stopped.is_set():
        made.cut()


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return _saved(add_one(), tmp_path / "network.fpga")


def _saved(program: Program, path: Path) -> Path:
    order = tuple(range(_BYTES))
    host = HostSide(
        input_shape=(_BYTES,),
        input_order=order,
        gain=1.0,
        offset=0.0,
        low=-128,
        high=127,
        output_shape=(_BYTES,),
        output_order=order,
        output_scale=1.0,
    )
    Artifact(
        program=program,
        size=SIZE,
        build=build_of(SIZE),
        host=host,
        programmer="ulx3s",
        bitstream=b"bits",
        bitstream_sha256=sha256(b"bits").hexdigest(),
    ).save(path)
    return path


def _opened(network: Path, cable: Cable) -> Session:
    return FpgaRuntime().load(network, SessionOptions(provider=f"serial:{cable.path}"))


@pytest.fixture(autouse=True)
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs for the session; it has none."""
    made = tmp_path / "programs"
    made.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


def _ask(session: Session) -> None:
    given = codes().reshape(1, -1).astype(np.float32)
    np.testing.assert_array_equal(session.run([given])[0], expected(given))


def test_a_cut_line_is_an_error_and_a_new_one_is_found_again(
    cable: Cable, network: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = _opened(network, cable)
    monkeypatch.setenv("PATH", str(programs))
    try:
        _ask(session)
        cable.cut()
        with pytest.raises(DeviceError, match="does not answer over UART"):
            _ask(session)
        with pytest.raises(DeviceError, match="no program openFPGALoader"):
            _ask(session)
        cable.plug()
        _ask(session)
    finally:
        session.close()


def test_a_cable_torn_out_in_the_middle_of_a_write_leaves_no_answer_of_halves(
    cable: Cable, tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the engine computes the sample before; it keeps both, half of one, and its power."""
    program = in_two_banks(slow(add_one(), taps=20_000))
    session = FpgaSession(
        _saved(program, tmp_path / "slow.fpga"), SessionOptions(provider=f"serial:{cable.path}")
    )
    monkeypatch.setenv("PATH", str(programs))
    samples = [codes(seed).reshape(1, -1).astype(np.float32) for seed in range(4)]
    answered: list[np.ndarray] = []

    def asked(*, is_torn: bool) -> Iterator[list[np.ndarray]]:
        for number, sample in enumerate(samples):
            if is_torn and number == 2:
                cable.left = 20  # of 35 bytes
            yield [sample]

    try:
        with pytest.raises(DeviceError, match="does not answer over UART"):
            answered.extend(answer[0] for answer in session.stream(asked(is_torn=True)))
        assert len(answered) == 1
        np.testing.assert_array_equal(answered[0], expected(samples[0]))
        cable.left = math.inf
        cable.plug(is_powered=True)
        answers = session.stream(asked(is_torn=False))
        for sample, answer in zip(samples, answers, strict=True):
            np.testing.assert_array_equal(answer[0], expected(sample))
    finally:
        session.close()


def test_two_sessions_at_one_fpga_take_turns_and_each_has_its_own_answers(
    cable: Cable, network: Path, tmp_path: Path
) -> None:
    """As where a release is tested while another one runs."""
    other = _saved(twice(add_one()), tmp_path / "other.fpga")
    sessions = [_opened(network, cable), _opened(other, cable)]
    wanted: list[Callable[[np.ndarray], np.ndarray]] = [
        expected,
        lambda given: np.minimum(1 - expected(given), 127),
    ]

    def asked(number: int) -> None:
        for seed in range(5):
            given = codes(seed).reshape(1, -1).astype(np.float32)
            [answer] = sessions[number].run([given])
            np.testing.assert_array_equal(answer, wanted[number](given))

    try:
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(asked, number) for number in range(2)]:
                done.result()
    finally:
        for session in sessions:
            session.close()


def test_who_does_not_get_a_turn_is_told(tmp_path: Path) -> None:
    (tmp_path / "uio0").touch()
    with turn(way := f"uio:{tmp_path / 'uio0'}"):
        with pytest.raises(DeviceError, match="is in use"), turn(way, waits_s=0.01):
            pytest.fail("two have a turn")
        with turn("etherbone:192.0.2.1@0x0"), turn("simulated FPGA"), turn("simulated FPGA"):
            pass
    with turn(way, waits_s=0.01):
        pass


def test_a_blank_fpga_is_loaded_and_then_asked_who_it_is(
    cable: Cable, network: Path, programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cable.loaded = tmp_path / "loaded"
    program = programs / "openFPGALoader"  # no board is here: it only makes the FPGA speak
    program.write_text(f'#!/bin/sh\ncat "$3" > {tmp_path}/bits\necho "$1 $2" > {cable.loaded}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    session = _opened(network, cable)
    try:
        _ask(session)
    finally:
        session.close()
    assert (tmp_path / "bits").read_bytes() == b"bits"
    assert cable.loaded.read_text() == "--board ulx3s\n"


def test_an_engine_that_hangs_once_is_stopped_loaded_and_asked_again(models: Path) -> None:
    engine = SimulatedEngine(SIZE, cache_folder=models, is_quick=True)
    try:
        driver = Driver(engine, add_one(), timeout_s=2.0)
        endless = at.MEMORIES["program"] + 6  # rows and pixels: 32,767 of each
        engine.write(endless, np.array([0x7FFF7FFF], np.uint32))
        np.testing.assert_array_equal(driver.run(codes()), expected(codes()))
    finally:
        engine.close()
