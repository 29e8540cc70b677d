"""Logic on a device: packed, started, read, through the interface that the agent uses."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from edgeml.errors import DeviceError, ModelError
from hardware.fpga import registers as at
from hardware.fpga.artifact import Artifact, load
from hardware.fpga.dataflow import Bits, DataflowDriver
from hardware.fpga.simulated import SimulatedDataflow
from hardware.runtimes import open_session
from hardware.runtimes.formats import FPGA, format_of
from hardware.runtimes.interface import SessionOptions
from tests.hardware.fpga.logic import artifact, expected, sums


@pytest.fixture
def logic(models: Path) -> Iterator[SimulatedDataflow]:
    made = SimulatedDataflow(sums(), cache_folder=models)
    yield made
    made.close()


def test_answers_what_the_logic_computes(logic: SimulatedDataflow) -> None:
    driver = DataflowDriver(logic, sums())
    for x, y in ((0, 0), (15, -16), (-16, 15), (7, 3)):
        given_codes = np.array([[[x, y]]])
        np.testing.assert_array_equal(driver.run(given_codes), expected(given_codes))
    assert driver.cycles == sums().latency + 2


def test_other_logic_is_refused(logic: SimulatedDataflow) -> None:
    with pytest.raises(DeviceError, match="Another bitstream is in the FPGA"):
        DataflowDriver(logic, replace(sums(), module="others"))


def test_input_written_while_it_runs_is_an_error_and_the_next_inference_clears_it(
    logic: SimulatedDataflow,
) -> None:
    driver = DataflowDriver(logic, sums())
    logic.write(at.CONTROL, np.array([at.START], np.uint32))
    logic.write(at.ACTIVATIONS, np.array([1], np.uint32))
    codes = np.array([[[1, 2]]])
    np.testing.assert_array_equal(driver.run(codes), expected(codes))


def test_the_agents_session_runs_it(
    tmp_path: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_FPGA", "simulated FPGA")
    path = tmp_path / "sums.fpga"
    artifact().save(path)
    assert format_of(path) == FPGA
    with pytest.raises(ModelError, match="is no network for an engine"):
        Artifact.load(path)
    session = open_session("fpga", path, SessionOptions(compiled=str(models)))
    try:
        (answer,) = session.run([np.array([[3.0, -5.0]], np.float32)])
        np.testing.assert_array_equal(answer, [[-2.0, 8.0]])
        assert session.placement() == {"simulated FPGA": 1}
    finally:
        session.close()
    assert load(path) == artifact()


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 20), st.integers(0, 3)), min_size=1), st.data()
)
def test_codes_are_packed_and_unpacked(
    kinds: list[tuple[bool, int, int]], data: st.DataObject
) -> None:
    ports = tuple(Bits(signed=s, bits=b, zeros=z) for s, b, z in kinds)
    shape = (1, 1, len(ports))
    dataflow = replace(sums(), inputs=ports, outputs=ports, input_shape=shape, output_shape=shape)
    codes = [
        data.draw(st.integers(-(1 << b - 1) if s else 0, (1 << b - s) - 1)) << z
        for s, b, z in kinds
    ]
    given_codes = np.array(codes, np.int64).reshape(shape)
    np.testing.assert_array_equal(dataflow.unpack(dataflow.pack(given_codes)), given_codes)
