"""What a method gives back."""

import msgspec


class Quantized(msgspec.Struct, frozen=True, kw_only=True):
    """A quantized model, as the bytes of an ONNX file.

    `nodes` counts those that changed: whose weights are integers now, or, in half precision,
    that compute in float16.
    """

    data: bytes
    nodes: int
