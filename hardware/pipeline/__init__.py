"""From a frame to the model's input, and from its output to a result.

The definition is data in the release (`definition`), the execution is here for converter and
agent alike (`runner`, `steps`, `postprocessors`), so that both do exactly the same.
"""

from hardware.pipeline.decode import decode_image
from hardware.pipeline.definition import Pipeline, Region, SiteParameters
from hardware.pipeline.parsing import parse, with_labels
from hardware.pipeline.results import (
    Anomaly,
    Classification,
    Detections,
    Embedding,
    Keyword,
    Raw,
    Result,
    Text,
)
from hardware.pipeline.runner import PipelineRunner

__all__ = [
    "Anomaly",
    "Classification",
    "Detections",
    "Embedding",
    "Keyword",
    "Pipeline",
    "PipelineRunner",
    "Raw",
    "Region",
    "Result",
    "SiteParameters",
    "Text",
    "decode_image",
    "parse",
    "with_labels",
]
