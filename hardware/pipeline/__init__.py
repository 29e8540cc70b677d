"""From a frame to the model's input, and from its output to a result.

The definition is data in the release (`definition`), the execution is here for converter and
agent alike (`runner`, `steps`), so that both do exactly the same.
"""

from hardware.pipeline.definition import Pipeline, Region, SiteParameters, parse
from hardware.pipeline.runner import Classification, PipelineRunner

__all__ = ["Classification", "Pipeline", "PipelineRunner", "Region", "SiteParameters", "parse"]
