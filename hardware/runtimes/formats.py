"""What format a model file has, from its first bytes and, where they do not tell, its suffix.

Blobs of a release are named by digest, so a suffix is often missing.
"""

import re
from pathlib import Path

ONNX = "onnx"
ORT = "ort"
OPENVINO_IR = "openvino-ir"
TFLITE = "tflite"

_HEAD_BYTES = 1024
# FlatBuffers carry a file identifier at byte 4.
_IDENTIFIERS = {b"TFL3": TFLITE, b"ORTM": ORT}
_SUFFIXES = {".onnx", ".ort", ".tflite"}
# How a ModelProto begins: ir_version, a small number, then one of its other fields.
_MODEL_PROTO = re.compile(rb"\x08[\x01-\x3f][\x12\x1a\x22\x28\x32\x3a\x42]")


def format_of(path: Path) -> str:
    """The format's name: `onnx`, `ort`, `openvino-ir`, `tflite`, or the suffix without its dot.

    Empty where neither content nor suffix tell. A file that cannot be read is judged by its
    suffix.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError:
        head = b""
    if head[4:8] in _IDENTIFIERS:
        return _IDENTIFIERS[head[4:8]]
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<net" in head:
        return OPENVINO_IR
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES and _MODEL_PROTO.match(head):
        return ONNX
    return suffix.removeprefix(".")
