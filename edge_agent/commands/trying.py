"""`edgeml agent try`: a release over a source, live in the terminal, without a fleet.

It runs as on a device: the same source thread, mailbox, worker and pipeline; only the figures
go to the terminal, and to the local API where one is asked for.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from cloud_sync.messages import ReportedSource, SourceConfig, Window
from cloud_sync.sketch import Sketch
from edge_agent.api.options import ApiOptions
from edge_agent.api.totals import Totals
from edge_agent.commands.film import Film
from edge_agent.commands.local import LocalRelease
from edge_agent.loaded import load
from edge_agent.memory import rss_bytes
from edge_agent.sources import Source, check_source, shown
from edge_agent.statistics import STAGES
from edge_agent.workers import Workers
from edgeml.errors import DeviceError, UserError
from hardware.probes import hottest

EVERY_S = 0.5
END_S = 5.0
_MEGABYTE = 1 << 20


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen until now; latencies are sketches in milliseconds, by stage."""

    release: str
    variant: str
    runtime: str
    source: str
    seconds: float
    accepted: int = 0
    inferred: int = 0
    empty: int = 0
    replaced: int = 0
    errors: int = 0
    confident: int = 0
    fps: float = 0.0
    latency: dict[str, Sketch] = {}
    classes: dict[str, int] = {}
    rss_bytes: int = 0
    celsius: float | None = None
    last: str = ""
    state: str = ""
    annotated: int = 0

    def summary(self) -> dict[str, Any]:
        """As one JSON object."""
        body = msgspec.structs.asdict(self)
        body["latency_ms"] = {
            stage: {f"p{q}": round(sketch.percentile(q), 3) for q in (50, 95, 99)}
            for stage, sketch in body.pop("latency").items()
        }
        body["rss_mb"] = round(body.pop("rss_bytes") / _MEGABYTE, 1)
        return body


Show = Callable[[Figures], None]


def source_of(text: str, fps: float | None, *, loop: bool) -> SourceConfig:
    """The source that a person names: a URI, a file, a folder of pictures or a camera's device.

    Raises:
        UserError: there is no such file.
    """
    path = Path(text).expanduser()
    if "://" in text or text.partition(":")[0] in {"push", "alsa", "npy"}:
        uri = text
    elif path.is_dir():
        uri = path.resolve().as_uri().replace("file:", "images:", 1)
    elif text.startswith("/dev/video"):
        uri = f"v4l2://{text}"
    elif path.is_file():
        scheme = "wav" if path.suffix.lower() == ".wav" else "file"
        uri = path.resolve().as_uri().replace("file:", f"{scheme}:", 1)
    else:
        raise UserError(
            f"There is no source {text}.",
            why="It is no file, no folder and no address.",
            fix="Name a video, a folder of pictures, /dev/video0, or an address such as "
            "rtsp://camera/stream.",
        )
    return SourceConfig(name="try", uri=uri, model="", fps=fps, loop=loop)


def run(
    local: LocalRelease,
    source: SourceConfig,
    *,
    show: Show,
    stop: threading.Event,
    seconds: float = 0.0,
    annotate: Path | None = None,
    api: ApiOptions | None = None,
) -> Figures:
    """Run the release over the source until it ends, the time is over or `stop` is set.

    Args:
        local: the release.
        source: where frames come from; its model is the release's.
        show: told the figures twice a second.
        stop: set to end it.
        seconds: after which it ends; 0 for no limit.
        annotate: a picture (.jpg) of the last frame, or a video (.mp4) of all.
        api: the local API to open meanwhile.

    Raises:
        DeviceError: the source cannot be opened, or the model does not run.
        UserError: the annotated file cannot be written.
    """
    source = msgspec.structs.replace(source, model=local.release.model)
    check_source(source)
    with contextlib.ExitStack() as ends:
        film = ends.enter_context(Film(annotate)) if annotate is not None else None
        running = _Running(local, source, film, ends)
        if api is not None:
            running.serve(api, ends)
        running.start()
        while not stop.wait(EVERY_S):
            found = running.figures()
            show(found)
            if running.feed.ended or (seconds and found.seconds >= seconds):
                break
        found = running.finish()
    if not found.accepted:
        raise DeviceError(
            f"No frame came from {shown(source.uri)}.", why=found.state, fix="Check the source."
        )
    whole = found.seconds or 1.0
    return msgspec.structs.replace(found, fps=round((found.inferred + found.empty) / whole, 1))


class _Running:
    """The release with its worker and its source; `ends` takes it all down."""

    def __init__(
        self,
        local: LocalRelease,
        source: SourceConfig,
        film: Film | None,
        ends: contextlib.ExitStack,
    ) -> None:
        self._local = local
        self._film = film
        self._totals = Totals()
        self._counting: list[Callable[[Window], None]] = [self._totals.add]
        self._classes: dict[str, int] = {}
        self._last = ""
        self._model = local.release.model
        self._way = local.ways[0]
        desired = local.desired(self._way.variant)
        loaded = load(local.store, desired, {}, self._way.execution)
        ends.callback(loaded.close)
        self._workers = Workers(self._result, self._count)
        self.feed = Source(source, lambda frame: self._workers.deliver(self._model, frame))
        self._workers.go_live(self._model, loaded)
        ends.callback(self._end)
        self._began = time.monotonic()

    def serve(self, options: ApiOptions, ends: contextlib.ExitStack) -> None:
        """Open the local API."""
        from edge_agent.api.server import LocalApi

        api = LocalApi(options, self._workers, device="this machine", sources=self._sources)
        api.start()
        ends.callback(api.close)
        self._counting.append(api.count)

    def _sources(self) -> dict[str, ReportedSource]:
        return {self.feed.config.name: self.feed.status().reported()}

    def start(self) -> None:
        """Let frames come."""
        if self._film is not None:
            self._film.follow(lambda: self._workers.watch(self._model, EVERY_S))
        self._began = time.monotonic()
        self.feed.start()

    def figures(self) -> Figures:
        """What was seen until now."""
        self._workers.report(1.0)
        found = Figures(
            release=self._local.release.name,
            variant=self._way.variant.name,
            runtime=str(self._way.execution),
            source=shown(self.feed.config.uri),
            seconds=round(time.monotonic() - self._began, 2),
            classes=dict(self._classes),
            rss_bytes=rss_bytes(),
            celsius=getattr(hottest(), "celsius", None),
            last=self._last,
            state=self.feed.error or ("ended" if self.feed.ended else ""),
            annotated=self._film.frames if self._film else 0,
        )
        for total in self._totals.all():
            recent = total.recent
            found = msgspec.structs.replace(
                found,
                accepted=total.accepted,
                inferred=total.inferred,
                empty=total.empty,
                replaced=total.replaced,
                errors=total.errors,
                confident=total.confident,
                latency=total.latency,
                fps=(recent.inferred + recent.empty) / recent.seconds if recent else 0.0,
            )
        return found

    def finish(self) -> Figures:
        """Let the last frame be inferred and the film be written; the last figures."""
        self.feed.stop()
        self.feed.join(END_S)
        _drain(self._workers, self._model)
        if self._film is not None:
            self._film.close()
        return self.figures()

    def _result(self, line: dict[str, Any]) -> None:
        outputs = ", ".join(f"{o['dtype']}{o['shape']}" for o in line.get("outputs", ()))
        self._last = str(line.get("error") or line.get("label") or outputs or "nothing")

    def _count(self, windows: Iterable[Window]) -> None:
        for window in windows:
            for label, number in window.classes.items():
                self._classes[label] = self._classes.get(label, 0) + number
            for each in self._counting:
                each(window)

    def _end(self) -> None:
        self.feed.stop()
        self._workers.stop()
        self.feed.join(END_S)
        self._workers.join(time.monotonic() + END_S)


def lines(figures: Figures) -> list[str]:
    """The figures for people."""
    said = [
        f"{figures.release}, {figures.variant}, on {figures.runtime}",
        f"{figures.source}: {figures.seconds:.1f} s, {figures.fps:.1f} frames/s",
        (
            f"{figures.accepted:,} frames: {figures.inferred:,} inferred, "
            f"{figures.empty:,} with nothing located, "
            f"{figures.replaced:,} replaced by a newer one, {figures.errors:,} errors"
        ),
    ]
    if figures.latency:
        said.append(f"{'milliseconds':<14}{'p50':>9}{'p95':>9}{'p99':>9}")
    for stage in STAGES:
        if stage in figures.latency:
            sketch = figures.latency[stage]
            cells = "".join(f"{sketch.percentile(q):>9.2f}" for q in (50, 95, 99))
            said.append(f"  {stage:<12}{cells}")
    warm = f", {figures.celsius:.0f} \N{DEGREE SIGN}C" if figures.celsius is not None else ""
    said.append(f"{figures.rss_bytes / _MEGABYTE:.0f} MB of memory{warm}")
    common = sorted(figures.classes.items(), key=lambda item: -item[1])[:5]
    if common:
        said.append("results: " + ", ".join(f"{label or 'no label'} {n:,}" for label, n in common))
    if figures.last:
        said.append(f"last: {figures.last}")
    if figures.state and figures.state != "ended":
        said.append(f"source: {figures.state}")
    return said


def _drain(workers: Workers, model: str) -> None:
    """Let the last frame be inferred before the figures are read."""
    deadline = time.monotonic() + END_S
    loaded = workers.running(model)
    while loaded is not None and time.monotonic() < deadline:
        before = loaded.live.inferred + loaded.live.empty + loaded.live.errors
        time.sleep(0.1)
        if before == loaded.live.inferred + loaded.live.empty + loaded.live.errors:
            return
