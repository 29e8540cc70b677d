"""NPU runtimes where there is no NPU: what they load, what they refuse, and how they say so."""

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeml.errors import DeviceError, ModelError
from hardware.runtimes import SessionOptions, open_session, runtimes, runtimes_for
from hardware.runtimes.bundle import pack, unpack
from hardware.runtimes.espdl import EspDlRuntime
from hardware.runtimes.ethosu import DELEGATE_VARIABLE, EthosURuntime
from hardware.runtimes.formats import format_of
from hardware.runtimes.interface import TensorSpec
from hardware.runtimes.litert import LiteRtSession
from hardware.runtimes.openvino import OpenVinoRuntime, ir_of
from hardware.runtimes.rockchip import RockchipRuntime, Tensors
from tests import needs
from tests.hardware.models import linear

TREES = Path(__file__).parent / "trees"
IMAGE = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)


def ep_context(path: Path) -> Path:
    """An ONNX file as QNN's compiler writes it, with nothing in its context."""
    node = helper.make_node(
        "EPContext", ["x"], ["y"], domain="com.microsoft", source="QNNExecutionProvider"
    )
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "compiled", values[:1], values[1:])
    onnx.save(helper.make_model(graph, ir_version=8), str(path))
    return path


def custom_operator(path: Path, name: str) -> Path:
    """A TFLite file of one custom operator, as Vela leaves one, [4] int8 in and out."""
    tflite = needs.module("ai_edge_litert.schema_py_generated")
    code = tflite.OperatorCodeT()
    code.builtinCode = tflite.BuiltinOperator.CUSTOM
    code.deprecatedBuiltinCode = tflite.BuiltinOperator.CUSTOM
    code.customCode = name
    tensors = []
    for index in range(2):
        tensor = tflite.TensorT()
        tensor.shape, tensor.type = [4], tflite.TensorType.INT8
        tensor.name, tensor.buffer = f"t{index}", 0
        tensors.append(tensor)
    operator = tflite.OperatorT()
    operator.inputs, operator.outputs = [0], [1]
    graph = tflite.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [0], [1]
    model = tflite.ModelT()
    model.version, model.operatorCodes = 3, [code]
    model.subgraphs, model.buffers = [graph], [tflite.BufferT()]
    builder = needs.module("flatbuffers").Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def rknn_bundle(path: Path) -> Path:
    """A bundle as the converter makes it, of a file that only the fake below reads."""
    spec = TensorSpec(name="x", shape=(1, 1, 2, 2), dtype="float32")
    tensors = Tensors(
        inputs=(spec,), outputs=(TensorSpec(name="y", shape=(1, 4), dtype="float32"),)
    )
    content = {"model.rknn": b"RKNN\x06", "tensors.json": msgspec.json.encode(tensors)}
    path.write_bytes(pack(content))
    return path


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (ep_context, "qnn-context"),
        (lambda path: custom_operator(path, "ethos-u"), "vela"),
        (lambda path: custom_operator(path, "another"), "tflite"),
        (rknn_bundle, "rknn"),
        (linear, "onnx"),
    ],
)
def test_a_compiled_file_is_known_by_its_content(
    tmp_path: Path, make: Callable[[Path], Path], expected: str
) -> None:
    assert format_of(make(tmp_path / "named-by-digest")) == expected


def test_no_other_runtime_takes_a_compiled_file_and_its_own_is_named(tmp_path: Path) -> None:
    compiled = ep_context(tmp_path / "model")
    assert runtimes_for(compiled) == ()
    with pytest.raises(ModelError, match=r"onnxruntime cannot run.*pip install onnxruntime-qnn"):
        open_session("onnxruntime", compiled)
    with pytest.raises(DeviceError, match=r"qnn is not installed\..*pip install onnxruntime-qnn"):
        open_session("qnn", compiled)


def test_an_ethos_u_file_fails_with_its_operator_named(tmp_path: Path) -> None:
    compiled = custom_operator(tmp_path / "model.tflite", "ethos-u")
    assert EthosURuntime(tmp_path).info() is None
    with pytest.raises(DeviceError, match=r"operator ethos-u is unresolved: .*no delegate"):
        open_session("ethosu", compiled)
    with pytest.raises(DeviceError, match=r"operator ethos-u is unresolved: .*no device node"):
        EthosURuntime(tmp_path).load(compiled, SessionOptions())
    with pytest.raises(ModelError, match="unresolved custom op: ethos-u"):
        LiteRtSession(compiled, SessionOptions())  # LiteRT says the same


DELEGATE = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
struct delegate {
  void *data; int (*prepare)(void *, struct delegate *); void *from, *to, *release;
  int64_t flags; void *builder;
};
static int prepare(void *context, struct delegate *self) { return 0; }
void *tflite_plugin_create_delegate(char **keys, char **values, size_t count,
                                    void (*report)(const char *)) {
  FILE *told = fopen(getenv("DELEGATE_TOLD"), "w");
  for (size_t i = 0; i < count; i++) fprintf(told, "%s=%s\n", keys[i], values[i]);
  fclose(told);
  struct delegate *made = calloc(1, sizeof *made);
  made->prepare = prepare;
  return made;
}
void tflite_plugin_destroy_delegate(void *made) { free(made); }
"""


def test_a_delegate_is_loaded_for_the_drivers_node_and_must_take_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real library in LiteRT's real interface, which takes nothing; no NPU is behind it."""
    compiled = custom_operator(tmp_path / "model.tflite", "ethos-u")
    source, library = tmp_path / "delegate.c", tmp_path / "usr/lib/libethosu_delegate.so"
    source.write_text(DELEGATE)
    library.parent.mkdir(parents=True)
    compiler = needs.program("gcc", "gcc")
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library], check=True)
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/ethosu0").touch()
    monkeypatch.delenv(DELEGATE_VARIABLE, raising=False)
    monkeypatch.setenv("DELEGATE_TOLD", str(tmp_path / "told"))
    runtime = EthosURuntime(tmp_path)
    info = runtime.info()
    assert info is not None
    assert info.providers == ("ethosu-delegate", "ethosu-driver")
    with pytest.raises(ModelError, match="unresolved custom op: ethos-u"):
        runtime.load(compiled, SessionOptions(provider="ethosu-delegate"))
    assert (tmp_path / "told").read_text() == "device_name=/dev/ethosu0\n"
    (tmp_path / "broken.so").write_bytes(b"no library")
    monkeypatch.setenv(DELEGATE_VARIABLE, str(tmp_path / "broken.so"))
    with pytest.raises(DeviceError, match=r"delegate broken\.so does not load"):
        runtime.load(compiled, SessionOptions())
    monkeypatch.setenv(DELEGATE_VARIABLE, str(tmp_path / "not-there.so"))
    with pytest.raises(DeviceError, match="here is no delegate"):
        runtime.load(compiled, SessionOptions())  # asked for by name: nothing takes its place


# A FAKE of rknn-toolkit-lite2, by its documented interface: load_rknn and init_runtime give 0
# or an error's number, inference gives a list of arrays, or None. No NPU, no Rockchip code.
FAKE = """
import numpy as np
from pathlib import Path
said = []
class RKNNLite:
    NPU_CORE_AUTO = 0
    refuse_load, refuse_start, outputs = 0, 0, True
    def load_rknn(self, path):
        said.append(Path(path).read_bytes())
        return self.refuse_load
    def init_runtime(self, target=None, device_id=None, async_mode=False, core_mask=None):
        said.append(core_mask)
        return self.refuse_start
    def inference(self, inputs, data_type=None, data_format=None, inputs_pass_through=None):
        said.append(data_format)
        return [2 * inputs[0].reshape(4)] if self.outputs else None
    def release(self):
        said.append("released")
"""


@pytest.fixture
def rknnlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The fake, installed: a module, and the package's metadata."""
    site = tmp_path / "site"
    (site / "rknnlite").mkdir(parents=True)
    (site / "rknnlite/__init__.py").touch()
    (site / "rknnlite/api.py").write_text(FAKE)
    described = site / "rknn_toolkit_lite2-2.5.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Name: rknn-toolkit-lite2\nVersion: 2.5.0\n")
    monkeypatch.syspath_prepend(str(site))
    for name in ("rknnlite", "rknnlite.api"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield __import__("rknnlite.api").api
    for name in ("rknnlite", "rknnlite.api"):
        sys.modules.pop(name, None)


def test_rockchips_runtime_keeps_to_the_documented_interface_of_a_fake(
    tmp_path: Path, rknnlite: Any
) -> None:
    session = RockchipRuntime().load(rknn_bundle(tmp_path / "model"), SessionOptions())
    [output] = session.run([np.ones((1, 1, 2, 2), np.float32)])
    assert (output.shape, output.tolist()) == ((1, 4), [[2, 2, 2, 2]])
    assert session.placement() == {"rknpu": 1}
    for _ in range(2):
        session.close()
    assert rknnlite.said == [b"RKNN\x06", 0, ["nchw"], "released"]
    with pytest.raises(ModelError, match="does not fit"):
        RockchipRuntime().load(rknn_bundle(tmp_path / "m"), SessionOptions()).run([IMAGE])


@pytest.mark.parametrize(
    ("attribute", "value", "error", "says"),
    [
        ("refuse_load", -1, ModelError, "no older than the toolkit"),
        ("refuse_start", -1, DeviceError, "another chip"),
    ],
)
def test_rockchips_refusals_are_told_and_the_npu_is_given_back(
    tmp_path: Path, rknnlite: Any, attribute: str, value: int, error: type[Exception], says: str
) -> None:
    setattr(rknnlite.RKNNLite, attribute, value)
    with pytest.raises(error, match=says):
        RockchipRuntime().load(rknn_bundle(tmp_path / "model"), SessionOptions())
    assert rknnlite.said[-1] == "released"


def test_an_inference_that_the_npu_does_not_answer_is_an_error(
    tmp_path: Path, rknnlite: Any
) -> None:
    session = RockchipRuntime().load(rknn_bundle(tmp_path / "model"), SessionOptions())
    rknnlite.RKNNLite.outputs = False
    with pytest.raises(ModelError, match="gave no outputs"):
        session.run([np.ones((1, 1, 2, 2), np.float32)])


def test_outputs_of_another_shape_than_the_bundle_says_are_an_error(
    tmp_path: Path, rknnlite: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = RockchipRuntime().load(rknn_bundle(tmp_path / "model"), SessionOptions())
    monkeypatch.setattr(rknnlite.RKNNLite, "inference", lambda *_, **__: [np.zeros(3)])
    with pytest.raises(ModelError, match="The NPU's outputs are not what"):
        session.run([np.ones((1, 1, 2, 2), np.float32)])


def test_rockchips_version_is_the_boards_library_not_the_package(
    tmp_path: Path, rknnlite: Any
) -> None:
    runtime = RockchipRuntime(tmp_path)
    assert metadata.version("rknn-toolkit-lite2") == "2.5.0"
    assert runtime.info() is None
    assert "librknnrt.so" in runtime.missing()
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/librknnrt.so").write_bytes(b"\x7fELF..librknnrt version: 1.6.0 (9a7b)\0")
    info = runtime.info()
    assert info is not None
    assert (info.version, info.providers) == ("1.6.0", ("rknpu",))


def test_an_ir_in_a_bundle_gives_what_the_onnx_file_gives(tmp_path: Path) -> None:
    source, bundle = linear(tmp_path / "m.onnx"), tmp_path / "named-by-digest"
    content = ir_of(source, "digits")
    bundle.write_bytes(content)
    assert content == ir_of(source, "digits")
    assert list(unpack(bundle)) == ["model.xml", "model.bin"]
    assert format_of(bundle) == "openvino-ir"
    ours = open_session("openvino", bundle).run([IMAGE])
    theirs = open_session("openvino", source).run([IMAGE])
    np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize("provider", ["NPU", "AUTO", "HETERO:NPU,CPU"])
def test_an_intel_npu_that_is_not_there_is_an_error_and_nothing_runs_in_its_place(
    tmp_path: Path, provider: str
) -> None:
    model = linear(tmp_path / "m.onnx")
    with pytest.raises(DeviceError, match=f"openvino has no provider {provider} here"):
        open_session("openvino", model, SessionOptions(provider=provider))


def test_openvino_says_npu_only_where_it_finds_one_itself() -> None:
    """The kernel of that board has one, and OpenVINO on this machine has no driver for it."""
    info = OpenVinoRuntime(TREES / "core-ultra").info()
    assert info is not None
    assert info.providers == ("CPU",)


@pytest.mark.parametrize("damage", ["cut", "changed", "compressed", "encrypted", "endless"])
def test_a_damaged_bundle_is_refused(tmp_path: Path, damage: str) -> None:
    import zipfile

    path = rknn_bundle(tmp_path / "model")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "changed":
        path.write_bytes(path.read_bytes().replace(b"RKNN\x06", b"RKNN\x07"))
    elif damage == "compressed":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model.rknn", b"0" * 1000)
    else:
        content = bytearray(path.read_bytes())
        entry = content.index(b"PK\x01\x02")  # of the directory: flags at 8, both sizes at 20
        if damage == "encrypted":
            content[entry + 8] |= 1
        else:
            content[entry + 20 : entry + 28] = 2 * (1 << 30).to_bytes(4, "little")
        path.write_bytes(content)
    with pytest.raises(ModelError, match="no whole bundle"):
        unpack(path)


def test_a_file_for_a_microcontroller_is_known_and_no_agent_runs_it(tmp_path: Path) -> None:
    model = tmp_path / "named-by-digest"
    model.write_bytes(b"EDL2" + bytes(60))
    assert format_of(model) == "espdl"
    assert runtimes_for(model) == ()
    with pytest.raises(DeviceError, match=r"in the C\+\+ firmware of an ESP32, not in an agent"):
        open_session("esp-dl", model)
    with pytest.raises(DeviceError, match=r"Build the file into the firmware"):
        EspDlRuntime().load(model, SessionOptions())
    with pytest.raises(ModelError, match="litert cannot run named-by-digest"):
        open_session("litert", model)


def test_npu_runtimes_are_registered() -> None:
    assert {"qnn", "ethosu", "rknn", "esp-dl"} <= set(runtimes())
