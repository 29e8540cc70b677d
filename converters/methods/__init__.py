"""Quantization methods: one prepared float model in, one ONNX file of fewer bits out.

    prepare -> observe -> quantize, by a recipe's rules -> sensitivity, head_nodes -> rules

What cannot be quantized by a method is refused with `NotQuantizableError`, as is a method that
would change nothing. All files are the same bytes for the same inputs.
"""

from converters.methods.calibrate import Feeds, Statistics, observe
from converters.methods.calibration_report import CalibrationReport, report_on
from converters.methods.heads import head_nodes, overflowing_nodes
from converters.methods.histograms import Range
from converters.methods.prepare import Prepared, prepare
from converters.methods.quantize import quantize, reference_of
from converters.methods.refusal import NotQuantizableError
from converters.methods.result import Quantized
from converters.methods.sensitivity import NodeLoss, sensitivity, worst

__all__ = [
    "CalibrationReport",
    "Feeds",
    "NodeLoss",
    "NotQuantizableError",
    "Prepared",
    "Quantized",
    "Range",
    "Statistics",
    "head_nodes",
    "observe",
    "overflowing_nodes",
    "prepare",
    "quantize",
    "reference_of",
    "report_on",
    "sensitivity",
    "worst",
]
