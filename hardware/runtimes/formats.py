"""What format a model file has, from its first bytes and, where they do not tell, its suffix.

Blobs of a release are named by digest, so a suffix is often missing.
"""

import mmap
import re
from pathlib import Path

ONNX = "onnx"
ORT = "ort"
OPENVINO_IR = "openvino-ir"
TFLITE = "tflite"
FPGA = "edgeml-fpga"
VELA = "vela"  # a TFLite file whose operator is an Ethos-U command stream
QNN_CONTEXT = "qnn-context"  # an ONNX file that holds what QNN compiled for a Hexagon
RKNN = "rknn"  # a bundle with the file that rknn-toolkit2 made
ESPDL = "espdl"  # Espressif's FlatBuffer for ESP-DL

_HEAD_BYTES = 1024
# The name of Vela's custom operator as a FlatBuffer holds strings: length, text, end.
_ETHOS_U = b"\x07\x00\x00\x00ethos-u\x00"
_EP_CONTEXT = b"\x09EPContext"  # an operator's name, as protobuf holds strings
_MAGICS = {b"edgeml-fpga/": FPGA, b"EDL2": ESPDL}
_ZIP = b"PK\x03\x04"
# The name of a bundle's first entry tells what is in it, see `hardware.runtimes.bundle`.
_BUNDLED = {b"model.xml": OPENVINO_IR, b"model.rknn": RKNN}
_ZIP_NAME = 30
# FlatBuffers carry a file identifier at byte 4.
_IDENTIFIERS = {b"TFL3": TFLITE, b"ORTM": ORT}
_SUFFIXES = {".onnx", ".ort", ".tflite"}
# How a ModelProto begins: ir_version, a small number, then one of its other fields.
_MODEL_PROTO = re.compile(rb"\x08[\x01-\x3f][\x12\x1a\x22\x28\x32\x3a\x42]")


def format_of(path: Path) -> str:
    """The format's name, a constant of this module, or the suffix without its dot.

    Empty where neither content nor suffix tell. A file that cannot be read is judged by its
    suffix.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        head = b""
    if magic := next(filter(head.startswith, _MAGICS), None):
        return _MAGICS[magic]
    if head[4:8] in _IDENTIFIERS:
        found = _IDENTIFIERS[head[4:8]]
        return VELA if found == TFLITE and _holds(path, _ETHOS_U) else found
    if head.startswith(_ZIP):
        name = next(filter(head[_ZIP_NAME:].startswith, _BUNDLED), None)
        if name is not None:
            return _BUNDLED[name]
    if _EP_CONTEXT in head and _MODEL_PROTO.match(head):
        return QNN_CONTEXT
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<net" in head:
        return OPENVINO_IR
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES and _MODEL_PROTO.match(head):
        return ONNX
    return suffix.removeprefix(".")


def _holds(path: Path, text: bytes) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0
