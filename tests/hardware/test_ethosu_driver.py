"""The Ethos-U's kernel driver by its device node, against a FAKE of its documented interface.

No NPU, no driver: the fake keeps the structures and request numbers of NXP's
`uapi/ethosu.h`, and its "firmware" doubles each byte of a file's input.
"""

import ctypes
import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.errors import DeviceError, ModelError
from hardware.runtimes import SessionOptions, ethosu_driver
from hardware.runtimes.ethosu import DriverSession, EthosURuntime
from hardware.runtimes.ethosu_driver import Network

from .test_runtimes_npu import custom_operator

OFFSET, BYTES = 16, 4


class Memory(bytearray):
    """A mapping, which is closed."""

    closed = False

    def close(self) -> None:
        self.closed = True


class FakeKernel:
    """A driver and firmware as the interface describes them; `refuse` says what it will not do."""

    def __init__(self, refuse: dict[int, int] | None = None, status: int = 0) -> None:
        self.refuse = refuse or {}
        self.status = status
        self.ends = True
        self.open_descriptors: dict[int, str] = {}
        self.memory: dict[int, Memory] = {}
        self.set: dict[int, int] = {}
        self.network = b""
        self._inference: Any = None

    def open(self, path: Path) -> int:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")
        return self._made("device")

    def ioctl(self, descriptor: int, request: int, argument: Any) -> int:
        if request in self.refuse:
            raise OSError(self.refuse[request], "refused")
        kind = self.open_descriptors[descriptor]
        answer: Callable[..., int | None] = {
            ("device", ethosu_driver.PING): lambda *_: 0,
            ("device", ethosu_driver.BUFFER_CREATE): self._buffer,
            ("buffer", ethosu_driver.BUFFER_SET): self._set,
            ("device", ethosu_driver.NETWORK_CREATE): self._network,
            ("network", ethosu_driver.NETWORK_INFO): self._info,
            ("network", ethosu_driver.INFERENCE_CREATE): self._create,
            ("inference", ethosu_driver.INFERENCE_INVOKE): self._invoke,
            ("inference", ethosu_driver.INFERENCE_STATUS): self._status,
        }[kind, request]
        return answer(descriptor, argument) or 0

    def map(self, descriptor: int, size: int) -> Any:
        assert len(self.memory[descriptor]) == size
        return self.memory[descriptor]

    def wait(self, descriptor: int, timeout_s: float) -> bool:
        assert self.open_descriptors[descriptor] == "inference"
        assert timeout_s > 0
        return self.ends

    def close(self, descriptor: int) -> None:
        del self.open_descriptors[descriptor]

    def _made(self, kind: str) -> int:
        descriptor = 100 + len(self.memory) + len(self.open_descriptors)
        self.open_descriptors[descriptor] = kind
        return descriptor

    def _buffer(self, _: int, asked: Any) -> int:
        made = self._made("buffer")
        self.memory[made] = Memory(asked.capacity)
        return made

    def _set(self, descriptor: int, asked: Any) -> None:
        assert asked.offset + asked.size <= len(self.memory[descriptor])
        self.set[descriptor] = asked.size

    def _network(self, _: int, asked: Any) -> int:
        assert asked.kind == 1
        self.network = bytes(self.memory[asked.descriptor])
        return self._made("network")

    def _info(self, _: int, info: Any) -> None:
        info.description = b"a network of Vela's"
        info.is_vela = info.input_count = info.output_count = 1
        info.input_bytes[0] = info.output_bytes[0] = BYTES
        info.input_offsets[0] = OFFSET

    def _create(self, _: int, asked: Any) -> int:
        layout = asked.layout
        assert (asked.kind, asked.input_count, asked.output_count) == (0, 1, 1)
        assert (layout.input_count, layout.output_count) == (1, 1)
        assert (layout.input_offsets[0], layout.input_bytes[0]) == (OFFSET, BYTES)
        self._inference = asked
        return self._made("inference")

    def _invoke(self, *_: Any) -> None:
        arena = self.memory[self._inference.inputs[0]]
        given = arena[OFFSET : OFFSET + BYTES]
        self.memory[self._inference.outputs[0]][:] = bytes(2 * byte for byte in given)

    def _status(self, _: int, told: Any) -> None:
        told.status = self.status


@pytest.fixture
def node(tmp_path: Path) -> Path:
    (tmp_path / "dev").mkdir()
    path = tmp_path / "dev/ethosu0"
    path.touch()
    return path


def test_requests_have_the_numbers_that_the_kernels_header_gives_them() -> None:
    # _IOR(1, number, size): 2 << 30 | size << 16 | 1 << 8 | number; sizes from the header's fields.
    assert ethosu_driver.PING == 0x0000_0100
    assert ethosu_driver.BUFFER_CREATE == 0x8004_0110
    assert ethosu_driver.BUFFER_SET == 0x8008_0111
    assert ethosu_driver.NETWORK_CREATE == 0x8008_0120
    tensors = 2 * (4 + 16 * 4 * 4 + 16 * 8 * 4)
    assert ctypes.sizeof(ethosu_driver.NetworkInfo) == 32 + 4 + tensors
    layout = 4 * (2 + 2 * (1 + 16 + 16))
    assert ctypes.sizeof(ethosu_driver.InferenceCreate) == 2 * 4 * 17 + layout + 4 + 20
    # The count of cycles has 64 bits, so that the structure is aligned to 8.
    assert ethosu_driver.INFERENCE_STATUS == 2 << 30 | 48 << 16 | 0x131


def test_a_file_runs_whole_and_all_is_given_back(tmp_path: Path, node: Path) -> None:
    model, kernel = custom_operator(tmp_path / "model.tflite", "ethos-u"), FakeKernel()
    session = DriverSession(model, node, kernel)
    assert str(session.inputs[0]) == "t0 int8[4]"
    for start in (1, 5):
        given = np.arange(start, start + 4, dtype=np.int8)
        [output] = session.run([given])
        np.testing.assert_array_equal(output, 2 * given)
    assert kernel.network == model.read_bytes()
    assert session.placement() == {"ethosu-driver": 1}
    with pytest.raises(ModelError, match="does not fit"):
        session.run([np.zeros(5, np.int8)])
    session.close()
    assert kernel.open_descriptors == {}
    assert all(memory.closed for memory in kernel.memory.values())


@pytest.mark.parametrize(
    ("kernel", "error", "says"),
    [
        (FakeKernel({ethosu_driver.NETWORK_INFO: errno.ENOTTY}), DeviceError, "another version"),
        (FakeKernel({ethosu_driver.NETWORK_CREATE: errno.EINVAL}), ModelError, "compiled for this"),
        (FakeKernel({ethosu_driver.BUFFER_CREATE: errno.ENOMEM}), ModelError, "refuses the model"),
    ],
)
def test_what_the_driver_refuses_is_told_and_nothing_is_kept(
    node: Path, kernel: FakeKernel, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        Network(node, b"model", 64, kernel=kernel)
    assert kernel.open_descriptors == {}


@pytest.mark.parametrize(("status", "word"), [(1, "error"), (3, "rejected"), (77, "77")])
def test_an_inference_that_fails_is_an_error_with_the_drivers_word(
    node: Path, status: int, word: str
) -> None:
    with (
        Network(node, b"model", 64, kernel=FakeKernel(status=status)) as network,
        pytest.raises(ModelError, match=f"driver says: {word}"),
    ):
        network.run([b"abcd"])


def test_an_inference_that_does_not_end_is_an_error(node: Path) -> None:
    kernel = FakeKernel()
    kernel.ends = False
    with (
        Network(node, b"model", 64, kernel=kernel) as network,
        pytest.raises(DeviceError, match="does not answer"),
    ):
        network.run([b"abcd"])


def test_without_the_node_the_error_names_it(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"/dev/ethosu9 cannot be opened\..*driver ethosu"):
        Network(Path("/dev/ethosu9"), b"model", 64)
    compiled = custom_operator(tmp_path / "model.tflite", "ethos-u")
    with pytest.raises(DeviceError, match=r"operator ethos-u is unresolved: .*no device node"):
        EthosURuntime(tmp_path).load(compiled, SessionOptions(provider="ethosu-driver"))


def test_a_node_that_is_no_ethos_u_is_refused_by_the_real_kernel(
    tmp_path: Path, node: Path
) -> None:
    """The real system calls, on a file: Linux answers ENOTTY."""
    compiled = custom_operator(tmp_path / "model.tflite", "ethos-u")
    runtime = EthosURuntime(tmp_path)
    info = runtime.info()
    assert info is not None
    assert info.providers == ("ethosu-driver",)
    with pytest.raises(DeviceError, match="speaks another version"):
        runtime.load(compiled, SessionOptions())
    assert node.read_bytes() == b""
