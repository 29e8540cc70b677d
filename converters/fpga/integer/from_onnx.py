"""An ONNX model and samples in, an integer graph out.

    network = read(model)
    graph = quantize(network, observe(network, batches), Widths())

or in one call, `integer_graph(model, samples)`.
"""

import numpy as np

from converters.fpga.integer.graph import IntegerGraph
from converters.fpga.integer.quantize import Widths, observe, quantize
from converters.fpga.integer.reading import read

BATCH = 32


def integer_graph(model: bytes, samples: np.ndarray, widths: Widths | None = None) -> IntegerGraph:
    """The integer graph of an ONNX model, calibrated on samples, [samples, *its input].

    Raises:
        NotQuantizableError: the model cannot be computed by gateware; the sentence says why.
    """
    network = read(model, samples.shape[1:])
    batches = (samples[start : start + BATCH] for start in range(0, len(samples), BATCH))
    return quantize(network, observe(network, batches), widths or Widths())
