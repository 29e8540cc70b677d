"""The kinds of sources by the scheme of their URIs: ours, and those of installed plug-ins."""

import threading
from collections.abc import Callable
from importlib.metadata import entry_points
from urllib.parse import urlsplit

from cloud_sync.messages import SourceConfig
from edge_agent.sources import audio, cameras, files, folders, pushed, tensors
from edge_agent.sources.interface import Opener, Reader, shown
from edgeml.errors import DeviceError

SCHEMES: dict[str, Opener] = {
    "alsa": audio.open_microphone,
    "file": files.open_video,
    "http": cameras.open_stream,
    "https": cameras.open_stream,
    "images": folders.open_images,
    "npy": tensors.open_tensors,
    "push": pushed.open_push,
    "rtsp": cameras.open_stream,
    "rtsps": cameras.open_stream,
    "v4l2": cameras.open_camera,
    "watch": folders.open_watched,
    "wav": audio.open_wav,
}

# What can be said of a source without opening it: a camera may be off, a socket not yet there.
_CHECKS: dict[str, Callable[[SourceConfig], object]] = {
    "alsa": audio.check_microphone,
    "http": cameras.check_stream,
    "https": cameras.check_stream,
    "npy": tensors.check_tensors,
    "push": pushed.check_push,
    "rtsp": cameras.check_stream,
    "rtsps": cameras.check_stream,
    "v4l2": cameras.check_camera,
}


def open_source(config: SourceConfig, stop: threading.Event | None = None) -> Reader:
    """Open a source.

    Args:
        config: what to open.
        stop: set when the reader is to stop.

    Raises:
        DeviceError: there is no such source, or it cannot be opened.
    """
    return _opener(config)(config, stop or threading.Event())


def check_source(config: SourceConfig) -> None:
    """Refuse a source that cannot work here, whatever is plugged in later.

    Raises:
        DeviceError: its kind is not known, its URI is wrong, or its file is not there.
    """
    opener = _opener(config)
    check = _CHECKS.get(_scheme(config.uri))
    if check is not None:
        check(config)
    elif _scheme(config.uri) in SCHEMES:
        opener(config, threading.Event()).close()


def _opener(config: SourceConfig) -> Opener:
    scheme = _scheme(config.uri)
    if scheme in SCHEMES:
        return SCHEMES[scheme]
    for entry in entry_points(group="edgeml.sources", name=scheme) if scheme else ():
        try:
            opener: Opener = entry.load()
        except Exception as error:
            raise DeviceError(
                f"The source plug-in {scheme} cannot be loaded.",
                why=f"{type(error).__name__}: {error}.",
                fix="Repair or uninstall the package that brings it.",
            ) from error
        return opener
    raise DeviceError(
        f"The source {shown(config.uri)!r} cannot be opened.",
        why=f"Known kinds are {', '.join(f'{name}:' for name in SCHEMES)}.",
        fix="Write file:///path/to/video.mp4 or rtsp://camera/stream.",
    )


def _scheme(uri: str) -> str:
    try:
        return urlsplit(uri).scheme
    except ValueError:
        return ""
