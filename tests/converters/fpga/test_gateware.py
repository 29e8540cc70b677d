"""The gateware computes the integer model's bits, every kind of layer, and so does a device."""

from math import prod
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cloud_sync.evidence import Verdict
from converters.fpga import built, flow, report
from converters.fpga.integer.graph import (
    Add,
    ArgMax,
    Concat,
    Conv,
    Host,
    IntegerGraph,
    Layer,
    MaxPool,
    Requantize,
    SumPool,
    Table,
    Tensor,
)
from converters.fpga.integer.operands import slid
from converters.fpga.integer.reference import encode_input, run
from converters.fpga.program import program
from converters.fpga.schedule import schedule
from converters.fpga.simulate import simulate
from edgeml.errors import DeviceError, TargetError
from hardware.fpga import registers as at
from hardware.fpga.artifact import Artifact
from hardware.fpga.driver import Driver
from hardware.fpga.far import moved
from hardware.fpga.program import Size
from hardware.fpga.simulated import KIND, SimulatedEngine
from hardware.runtimes.fpga import FpgaRuntime
from hardware.runtimes.interface import SessionOptions
from tests import needs

from .small_nets import silent

SETTINGS: dict[str, str | int | float | bool] = {
    "family": "ecp5",
    "part": "25k",
    "luts": 24288,
    "dsp": 28,
    "bram": 56,
    "spram": 0,
    "lanes": 8,
    "clock_mhz": 25.0,
    "architecture": "engine",
    "until": "rtl",
    "seeds": 1,
}
FEW_MEMORIES: dict[str, str | int | float | bool] = {
    **SETTINGS,
    "family": "ice40",
    "part": "up5k",
    "luts": 5280,
    "dsp": 8,
    "bram": 30,
    "lanes": 4,
    "clock_mhz": 12.0,
}
NO_PADS = (0, 0, 0, 0)


class _Maker:
    """Draws layers one after the other."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, Tensor] = {}
        self.layers: list[Layer] = []

    def tensor(self, name: str, shape: tuple[int, int, int], *, signed: bool = True) -> str:
        self.tensors[name] = Tensor(name, shape, 8, signed, 1.0)
        return name

    def rule(self, channels: int, shift: int, most: int, *, signed: bool = True) -> Requantize:
        bias = self.rng.integers(-2000, 2000, channels) + (1 << shift >> 1)
        low, high = (-128, 127) if signed else (0, 255)
        return Requantize(self.rng.integers(1, most, channels), bias, shift, low, high)

    def conv(
        self, given: str, made: str, outputs: int, size: int, *, signed: bool = True,
        stride: int = 1, pads: tuple[int, int, int, int] = NO_PADS, depthwise: bool = False,
    ) -> None:  # fmt: skip
        inputs = 1 if depthwise else self.tensors[given].shape[2]
        weights = self.rng.integers(-127, 128, (outputs, size, size, inputs))
        strides = (stride, stride)
        shape = slid(self.tensors[given].shape, (size, size), strides, pads, 0)[:2]
        self.tensor(made, (*shape, outputs), signed=signed)
        rule = self.rule(outputs, 14, 200, signed=signed)
        self.layers.append(Conv(made, given, made, weights, 8, depthwise, strides, pads, rule, 32))


def _everything(seed: int, *, ends_in_arg_max: bool) -> IntegerGraph:
    """A network with every kind of layer, odd channel counts, branches and uneven padding."""
    make = _Maker(seed)
    make.tensor("x", (9, 8, 3))
    make.conv("x", "a", 13, 3, pads=(1, 1, 1, 1), signed=False)
    make.conv("a", "b", 13, 3, stride=2, pads=(0, 1, 1, 0), depthwise=True)
    make.conv("b", "c", 13, 1, signed=False)
    height, width, _ = make.tensors["c"].shape
    make.tensor("d", (height, width, 13))
    make.layers.append(Add("d", ("b", "c"), "d", (77, 100), make.rule(13, 8, 3), 32))
    make.tensor("e", (height, width, 13))
    make.layers.append(Table("e", "d", "e", make.rng.integers(-128, 128, 256)))
    make.conv("b", "f", 21, 1)
    make.tensor("g", (height, width, 34))
    make.layers.append(Concat("g", ("e", "f"), "g"))
    pooled = slid(make.tensors["g"].shape, (2, 2), (2, 2), NO_PADS, 0)[:2]
    make.tensor("m", (*pooled, 34))
    make.layers.append(MaxPool("m", "g", "m", (2, 2), (2, 2), NO_PADS))
    make.conv("m", "n", 24, 3, pads=(1, 1, 1, 1))
    make.tensor("p", (1, 1, 24))
    rule = make.rule(24, 8, 60)
    make.layers.append(SumPool("p", "n", "p", pooled, (1, 1), NO_PADS, rule, 32))
    make.conv("p", "o", 10, 1)
    if ends_in_arg_max:
        make.tensor("i", (1, 1, 1), signed=False)
        make.layers.append(ArgMax("i", "o", "i"))
    size = prod(make.tensors["x"].shape)
    outputs = 1 if ends_in_arg_max else 10
    host = Host((9, 8, 3), np.arange(size), 100.0, 0.0, (outputs,), np.arange(outputs), False)
    output = "i" if ends_in_arg_max else "o"
    return IntegerGraph(make.tensors, "x", output, tuple(make.layers), host)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs.program("verilator", "verilator")
    needs.program("g++", "g++")
    return tmp_path_factory.mktemp("verilated")


@pytest.mark.parametrize("lanes", [4, 8])
def test_every_kind_of_layer_is_bit_exact(models: Path, lanes: int) -> None:
    graph = _everything(1, ends_in_arg_max=False)
    codes = np.random.default_rng(2).integers(-128, 128, (5, 9, 8, 3))
    made = program(schedule(graph, lanes))
    simulated = simulate(made, codes, folder=models)
    wanted = run(graph, codes)
    assert np.unique(wanted).size > 10
    np.testing.assert_array_equal(simulated.codes, wanted)
    assert simulated.cycles == made.cycles  # the estimate is exact


class _Restless:
    """A way to an engine: whoever waits reads and writes all the time what he may."""

    kind = KIND

    def __init__(self, engine: SimulatedEngine, words: int) -> None:
        self.read, self.write, self.close = engine.read, engine.write, engine.close
        self._rng, self._words = np.random.default_rng(0), words
        self.accesses = 0

    def wait(self, seconds: float) -> None:
        del seconds
        is_second = bool(self.read(at.STATUS, 1)[0] & at.BANK)
        free = at.ACTIVATIONS + (0 if is_second else self._words)
        for place in self._rng.integers(0, self._words, 20):
            self.write(free + place, self.read(free + place, 1))
            self.read(at.ACTIVATIONS + int(self._rng.integers(0, 4 * self._words)), 1)
        self.accesses += 60


def test_samples_that_overlap_are_bit_exact(models: Path) -> None:
    """In both orders, each another sample, while a host takes clock after clock of the memory.

    One engine runs all of them: it is larger than some need.
    """
    codes = np.random.default_rng(5).integers(-128, 128, (6, 9, 8, 3))
    graphs = [_everything(1, ends_in_arg_max=ends) for ends in (False, True)]
    made = [(g, program(schedule(g, 4, banks=banks))) for g in graphs for banks in (1, 2)]
    sizes = [msgspec.structs.astuple(Size.of(each)) for _, each in made]
    engine = SimulatedEngine(
        Size(**dict(zip(Size.__struct_fields__, map(max, *sizes), strict=True))),
        cache_folder=models,
        is_quick=True,
    )
    try:
        for graph, each in made:
            restless = _Restless(engine, each.input_words)
            driver = Driver(restless if each.banks == 2 else engine, each)
            for order in (slice(None), slice(None, None, -1)):
                answers = np.stack(list(driver.stream(codes[order])))
                np.testing.assert_array_equal(answers, run(graph, codes[order]))
            assert each.banks == 1 or restless.accesses > 1000
    finally:
        engine.close()


def test_the_second_bank_costs_what_input_and_output_take() -> None:
    graph = _everything(1, ends_in_arg_max=False)
    one, two = (program(schedule(graph, 8, banks=banks)) for banks in (1, 2))
    assert one.input.channels == (0, 1, 2)  # side by side: dense layers alone read it
    assert (one.layers, two.layers) == (12, 12)
    assert len(two.program) == 2 * len(one.program)
    assert one.output is not None
    own = [placed.words(8) for placed in (one.input, one.output)]
    assert one.activation_words <= two.activation_words <= one.activation_words + 2 * sum(own)
    assert (one.weights, one.parameters, one.cycles) == (two.weights, two.parameters, two.cycles)
    assert len(moved(two).far) == len(moved(one).far)


@pytest.mark.parametrize(("settings", "is_far"), [(SETTINGS, False), (FEW_MEMORIES, True)])
def test_a_device_gives_what_the_integer_model_gives(
    models: Path, tmp_path: Path, settings: dict[str, str | int | float | bool], is_far: bool
) -> None:
    """Also where the weights do not fit, and are in the board's flash."""
    graph = _everything(3, ends_in_arg_max=True)
    samples = np.random.default_rng(4).uniform(-1.3, 1.3, (4, 9, 8, 3)).astype(np.float32)
    made = built.build(graph, settings, tmp_path, encode_input(graph, samples), silent)
    assert [gate.result for gate in made.gates] == [Verdict.PASS]
    artifact = Artifact.load(made.path)
    assert artifact.clock_mhz == settings["clock_mhz"]
    assert artifact.program.cycles == next(e.value for e in made.estimates if e.name == "cycles")
    assert bool(artifact.program.far) == is_far == ("flash.bin" in made.documents)
    session = FpgaRuntime().load(made.path, SessionOptions(provider=KIND, compiled=str(models)))
    given = [int(session.run([sample[None]])[0][0, 0]) for sample in samples]
    assert given == run(graph, encode_input(graph, samples)).ravel().tolist()
    assert session.placement() == {KIND: len(schedule(graph, artifact.program.lanes).steps)}
    session.close()


def test_what_a_network_needs_is_said_before_anything_is_built() -> None:
    graph = _everything(1, ends_in_arg_max=False)
    assert flow.fits(graph, SETTINGS).need.bram < 56
    with pytest.raises(TargetError, match="does not fit 25k"):
        flow.fits(graph, SETTINGS | {"bram": 3})
    with pytest.raises(TargetError, match="does not fit up5k"):
        flow.fits(graph, FEW_MEMORIES | {"bram": 20})


def test_the_picture_has_every_layer() -> None:
    scheduled = schedule(_everything(1, ends_in_arg_max=False), 8)
    table = report.rows(scheduled)
    assert len(table) == 12  # the Concat has two
    assert all(0 < row.use <= 1 for row in table)
    assert report.svg(scheduled).count("<rect") == len(table) + 1


def test_an_engine_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    class Dead:
        kind = "a cut cable"

        def read(self, address: int, count: int) -> np.ndarray:
            return np.zeros(count, np.uint32)

    made = program(schedule(_everything(1, ends_in_arg_max=False), 4))
    with pytest.raises(DeviceError, match="no gateware of edgeml behind a cut cable"):
        Driver(Dead(), made)  # type: ignore[arg-type]
