"""Where frames come from: cameras, streams, files, folders, tensors, sound, and the local API.

Each source runs by itself, from the device's configuration; a source that cannot be opened, or
falls silent, says so (`Source.status`) and is tried again, with longer and longer pauses.
"""

from edge_agent.sources.folders import IMAGE_SUFFIXES
from edge_agent.sources.interface import Deliver, Opener, Reader, SourceStatus, shown
from edge_agent.sources.kinds import SCHEMES, check_source, open_source
from edge_agent.sources.source import PushSource, Source

__all__ = [
    "IMAGE_SUFFIXES",
    "SCHEMES",
    "Deliver",
    "Opener",
    "PushSource",
    "Reader",
    "Source",
    "SourceStatus",
    "check_source",
    "open_source",
    "shown",
]
