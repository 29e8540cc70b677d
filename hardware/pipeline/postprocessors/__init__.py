"""What reads a model's outputs: ours, and those of installed plug-ins.

A post-processor is named by `op` in a pipeline's `[[post]]`; a plug-in's is found under the
entry point group `edgeml.postprocessors`, and loaded only where a pipeline names it.
"""

from importlib.metadata import entry_points

from edgeml.errors import DeviceError
from hardware.pipeline.postprocessors.anomaly import Deviate
from hardware.pipeline.postprocessors.classification import Classify
from hardware.pipeline.postprocessors.embedding import Embed
from hardware.pipeline.postprocessors.interface import PostProcessor, Reader, Seen, Settings
from hardware.pipeline.postprocessors.keyword import Spot
from hardware.pipeline.postprocessors.raw import Outputs
from hardware.pipeline.postprocessors.ssd import Ssd
from hardware.pipeline.postprocessors.text import Ctc
from hardware.pipeline.postprocessors.yolo import Yolo
from hardware.pipeline.postprocessors.yunet import YuNet

__all__ = ["OURS", "Classify", "PostProcessor", "Reader", "Seen", "Settings", "find"]

OURS: dict[str, type[PostProcessor]] = {
    str(kind.__struct_config__.tag): kind
    for kind in (Classify, Yolo, Ssd, YuNet, Ctc, Spot, Deviate, Embed, Outputs)
}


def find(name: str) -> type[PostProcessor] | None:
    """The post-processor of a name; None where there is none.

    Raises:
        DeviceError: the plug-in that brings it cannot be loaded.
    """
    if name in OURS:
        return OURS[name]
    for entry in entry_points(group="edgeml.postprocessors", name=name):
        try:
            kind: type[PostProcessor] = entry.load()
            if kind.__struct_config__.tag == name and issubclass(kind, PostProcessor):
                return kind
            why = f"It is no PostProcessor with the tag {name}."
        except Exception as error:  # noqa: BLE001 -- whatever a plug-in throws is its fault
            why = f"{type(error).__name__}: {error}."
        raise DeviceError(
            f"The post-processor plug-in {name} cannot be loaded.",
            why=why,
            fix="Repair or uninstall the package that brings it.",
        )
    return None
