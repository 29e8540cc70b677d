"""What "right" means: metrics of classifiers, recognisers and detectors, and one's own.

>>> find_metric("topk:5").paired
'binary'
"""

from converters.metrics.detection import Detections, MeanAveragePrecision
from converters.metrics.finding import chance_of, find_metric
from converters.metrics.interface import Metric, Outputs, Reweighted

__all__ = [
    "Detections",
    "MeanAveragePrecision",
    "Metric",
    "Outputs",
    "Reweighted",
    "chance_of",
    "find_metric",
]
