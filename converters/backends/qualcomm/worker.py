"""Compiles a quantized ONNX file for an HTP: QNN's context in an ONNX file of one node."""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

_PROVIDER = "QNNExecutionProvider"
_LONGEST = 300  # characters of a reason
_LOG = 2  # standard error, a file: what QNN prints goes there
_NAMED = 10
_AGAIN = "import json, runpy, sys; runpy.run_path(sys.argv[1])['answer'](json.loads(sys.argv[2]))"
_NOT_CREATED = re.compile(r'<E> "([^"]+?)(?:_token_\d+)?" generated: could not create op')


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compile `model` for the HTP `arch` ("73") into `output`.

    A process compiles once: QNN counts what it makes, and writes the numbers into the file, so
    that only the first file of a process is the same each time.

    The reply: `seconds`, `sdk` (QNN's version) and `left`, the nodes [name, operator] that QNN
    does not take; `refused` with a reason where it takes none, or the model is no quantized one.
    """
    import onnxruntime as ort

    content = Path(request["model"]).read_bytes()
    if b"QuantizeLinear" not in content:
        return {"refused": "The model is in float; on the HTP it would run in half precision."}
    plugin, devices = _plugin(ort, request.get("severity", 3))
    begun = time.perf_counter()
    # QNN names its partition by the file's path: it has to be the same one everywhere.
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        compiled = Path("compiled.onnx")
        settings = ort.SessionOptions()
        entries = {
            "ep.context_enable": "1",
            "ep.context_embed_mode": "1",
            "ep.context_file_path": str(compiled),
            "session.record_ep_graph_assignment_info": "1",
        }
        for name, value in entries.items():
            settings.add_session_config_entry(name, value)
        options = {
            "backend_path": plugin.get_qnn_htp_path(),
            "htp_arch": request["arch"],
            "htp_graph_finalization_optimization_mode": "3",
            "offload_graph_io_quantization": "0",
        }
        settings.add_provider_for_devices(devices, options)
        try:
            session = ort.InferenceSession(content, settings)
        except Exception as error:  # noqa: BLE001 -- onnxruntime's own, without a class of their own
            os.chdir("/")
            names = "" if "severity" in request else _not_created(request)
            return {"refused": f"{_sentence(error)}{names}"}
        assigned = session.get_provider_graph_assignment_info()
        if not compiled.is_file() or all(part.ep_name != _PROVIDER for part in assigned):
            return {"refused": "QNN takes none of its nodes."}
        made = compiled.read_bytes()
        os.chdir("/")
    Path(request["output"]).write_bytes(made)
    left = [
        [node.name, node.op_type]
        for part in assigned
        if part.ep_name != _PROVIDER
        for node in part.get_nodes()
    ]
    return {"seconds": time.perf_counter() - begun, "sdk": _sdk(plugin), "left": left}


def check() -> dict[str, Any]:
    """Compile a small quantized product for the v73 and run it on the simulator."""
    import base64

    import numpy as np
    import onnxruntime as ort

    with tempfile.TemporaryDirectory() as folder:
        model, output = Path(folder) / "model.onnx", Path(folder) / "compiled.onnx"
        model.write_bytes(base64.b64decode(_MODEL))
        reply = answer({"model": str(model), "output": str(output), "arch": "73"})
        plugin, devices = _plugin(ort)
        settings = ort.SessionOptions()
        settings.add_provider_for_devices(devices, {"backend_path": plugin.get_qnn_htp_path()})
        session = ort.InferenceSession(str(output), settings)
        (y,) = session.run(None, {"x": np.full((1, 4), 0.5, np.float32)})
    return {"sdk": reply["sdk"], "left": len(reply["left"]), "first": float(y[0, 0])}


def _plugin(ort: Any, severity: int = 3) -> tuple[Any, list[Any]]:
    onnxruntime_qnn = importlib.import_module("onnxruntime_qnn")
    ort.set_default_logger_severity(severity)
    if not any(device.ep_name == _PROVIDER for device in ort.get_ep_devices()):
        ort.register_execution_provider_library(_PROVIDER, onnxruntime_qnn.get_library_path())
    devices = [device for device in ort.get_ep_devices() if device.ep_name == _PROVIDER]
    return onnxruntime_qnn, devices[:1]


def _not_created(request: dict[str, Any]) -> str:
    """The operators that QNN could not create: only its most verbose log names them.

    That has to be set before QNN is loaded: another process tries once more.
    """
    written = os.fstat(_LOG).st_size
    again = json.dumps({**request, "severity": 0})
    subprocess.run([sys.executable, "-s", "-P", "-c", _AGAIN, __file__, again], check=False)
    said = os.pread(_LOG, os.fstat(_LOG).st_size - written, written).decode(errors="replace")
    names = list(dict.fromkeys(_NOT_CREATED.findall(said)))
    return f" It could not create {', '.join(names[:_NAMED])}." if names else ""


def _sentence(error: Exception) -> str:
    """What QNN says, without the place in its source."""
    text = " ".join(str(error).split())
    return f"{text.rsplit(' : ', 1)[-1].strip().rstrip('.')[:_LONGEST]}."


def _sdk(plugin: Any) -> str:
    return str(plugin.build_and_package_info.qnn_version)


# A product with a 4 x 4 matrix of ones, quantized: y = 2 where x = 0.5.
_MODEL = (
    "CAg6/QIKJQoBeAoDeF9zCgN4X3oSAnhxGgJ4cSIOUXVhbnRpemVMaW5lYXIKKAoCeHEKA3hfcwoDeF96EgJ4ZBoC"
    "eGQiEERlcXVhbnRpemVMaW5lYXIKJwoBdwoDd19zCgN3X3oSAndkGgJ3ZCIQRGVxdWFudGl6ZUxpbmVhcgoWCgJ4"
    "ZAoCd2QSAW0aAW0iBk1hdE11bAolCgFtCgN5X3MKA3lfehICeXEaAnlxIg5RdWFudGl6ZUxpbmVhcgonCgJ5cQoD"
    "eV9zCgN5X3oSAXkaAnlkIhBEZXF1YW50aXplTGluZWFyEgFuKg0QAUIDeF9zSgSBgIA7KgoQAkIDeF96SgEAKg0Q"
    "AUIDd19zSgQEAgE8KgoQA0IDd196SgEAKg0QAUIDeV9zSgSBgIA8KgoQAkIDeV96SgEAKhsIBAgEEANCAXdKEH9/"
    "f39/f39/f39/f39/f39aEwoBeBIOCgwIARIICgIIAQoCCARiEwoBeRIOCgwIARIICgIIAQoCCARCBAoAEBE="
)
