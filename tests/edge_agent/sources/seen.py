"""A source that runs, and what it delivered."""

from typing import Any

from cloud_sync.messages import SourceConfig
from edge_agent.mailbox import Frame
from edge_agent.sources import Source


def config(uri: str, **more: object) -> SourceConfig:
    return SourceConfig(**({"name": "belt", "uri": uri, "model": "toy"} | more))


class Seen:
    """A source, started, and the frames that it delivered; `answer` is what they are told."""

    def __init__(self, wanted: SourceConfig, kind: type[Source] = Source, **more: Any) -> None:
        self.frames: list[Frame] = []
        self.answer: bool | None = False
        self.source = kind(wanted, self._take, **more)
        self.source.start()

    def stop(self) -> None:
        self.source.stop()
        assert self.source.join(5)

    def _take(self, frame: Frame) -> bool | None:
        if self.answer is not None:
            self.frames.append(frame)
        return self.answer
