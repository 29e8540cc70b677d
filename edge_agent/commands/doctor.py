"""`edgeml agent doctor`: what is wrong on this device, and what to do about it.

Each check is a function that returns findings. A finding that is bad makes the exit code 9; a
warning does not.
"""

import os
import re
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from cloud_sync.dating import CLOCK_OFF_S, EARLIEST_S
from cloud_sync.messages import SourceConfig
from edge_agent.sources import open_source, shown
from edge_agent.trust.identity import AgentConfig, load_identity
from edge_agent.update.journal import DeviceState, read_state
from edgeml.errors import EdgemlError
from hardware.capabilities import Capabilities
from hardware.probes import clock_share, critical_c, files, hottest, temperatures

CONNECT_S = 5.0
SOURCE_S = 15.0
FREE_BYTES = 256 << 20
FREE_SHARE = 0.02
FREE_MEMORY = 64 << 20
NEAR_C = 10.0
HELD_BACK = 0.9


class Grade(StrEnum):
    """How a check ended."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check saw; `fix` says what to do where it is not good."""

    check: str
    grade: Grade
    said: str
    fix: str = ""


class Patient(msgspec.Struct, frozen=True, kw_only=True):
    """What is examined. Without an enrolment `agent` is None."""

    capabilities: Capabilities
    config: Path | None = None
    agent: AgentConfig | None = None
    sources: tuple[str, ...] = ()
    root: Path = Path("/")


def examine(patient: Patient, *, without: AbstractSet[str] = frozenset()) -> tuple[Finding, ...]:
    """Every finding, in the order of the checks; a check that fails is a finding too."""
    found: list[Finding] = []
    for name, check in _CHECKS.items():
        if name in without:
            continue
        try:
            found += check(patient)
        except (EdgemlError, OSError) as error:
            fix = error.fix if isinstance(error, EdgemlError) else ""
            found.append(Finding(check=name, grade=Grade.BAD, said=f"{error}", fix=fix))
    return tuple(found)


def _runtime(patient: Patient) -> Iterator[Finding]:
    found = patient.capabilities.runtimes
    if not found:
        yield _bad("runtime", "none is installed", "Run: pip install 'edgeml[agent]'")
    for runtime in found:
        providers = ", ".join(runtime.providers)
        yield _good("runtime", f"{runtime.name} {runtime.version} ({providers})")
    for part in patient.capabilities.accelerators:
        if part.path and not os.access(part.path, os.R_OK | os.W_OK):
            yield _warning(
                "accelerator",
                f"{part.part} is at {part.path}, which this user may not open",
                f"Add the user to the group of {part.path}: ls -l {part.path}",
            )
        else:
            yield _good("accelerator", " ".join(filter(None, (part.part, part.driver))))


def _identity(patient: Patient) -> Iterator[Finding]:
    if patient.config is None or patient.agent is None:
        yield _warning("identity", "this device is not enrolled", "See: edgeml agent enroll --help")
        return
    identity = load_identity(patient.config)  # refuses a key that others can read
    yield _good("identity", f"{patient.agent.device}, its key is its own")
    folder = identity.data / "identity"
    for path in sorted((folder, identity.data, *folder.iterdir())):
        mode = path.stat().st_mode
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield _bad("trust files", f"others may write to {path}", f"Run: chmod go-w {path}")
    for name in ("director.pem", "device.pem"):
        if not (folder / name).is_file():
            yield _bad("trust files", f"{folder / name} is missing", "Enrol again.")


def _sources(patient: Patient) -> Iterator[Finding]:
    wanted = [SourceConfig(name=shown(u), uri=u, model="", loop=False) for u in patient.sources]
    if not wanted and patient.agent is not None:
        wanted = list(_state(patient.agent).configuration.sources)
    if not wanted:
        yield _warning(
            "sources", "none is configured", "Set them from the fleet: edgeml devices configure"
        )
    for source in wanted:
        if urlsplit(source.uri).scheme == "push":
            yield _good(f"source {source.name}", "waits for frames from the local API")
            continue
        yield _first_frame(source)


def _first_frame(source: SourceConfig) -> Finding:
    """Open a source and take a frame, on a thread, since a camera's driver may hang."""
    answer: list[str] = []
    fault: list[Exception] = []
    stop = threading.Event()

    def look() -> None:
        try:
            reader = open_source(source, stop)
            try:
                frame = reader.read()
                answer.append("no frame came" if frame is None else _shape(frame[1]))
            finally:
                reader.close()
        except Exception as error:  # noqa: BLE001 -- whatever a driver throws is the finding
            fault.append(error)

    name = f"source {source.name}"
    thread = threading.Thread(target=look, name="doctor", daemon=True)
    thread.start()
    thread.join(SOURCE_S)
    stop.set()
    if fault:
        fix = fault[0].fix if isinstance(fault[0], EdgemlError) else ""
        return _bad(name, f"{fault[0]}", fix)
    if not answer:
        return _bad(
            name,
            f"{shown(source.uri)} gave no frame within {SOURCE_S:.0f} seconds",
            "Check the cable, the address, and whether another program holds the camera.",
        )
    return _good(name, f"{shown(source.uri)} gives {answer[0]}")


def _shape(frame: object) -> str:
    shape: tuple[int, ...] = getattr(frame, "shape", (0,))
    return f"frames of {shape[1]} x {shape[0]}" if len(shape) > 1 else f"{shape[0]} samples"


def _fleet(patient: Patient) -> Iterator[Finding]:
    if patient.config is None:
        return
    identity = load_identity(patient.config)
    url = urlsplit(identity.config.fleet_url)
    yield _reach("fleet", url.hostname or "", url.port or (443 if url.scheme == "https" else 80))
    broker = urlsplit(identity.mqtt.url)
    yield _reach(
        "broker", broker.hostname or "", broker.port or (8883 if broker.scheme == "mqtts" else 1883)
    )


def _reach(name: str, host: str, port: int) -> Finding:
    try:
        with socket.create_connection((host, port), CONNECT_S):
            return _good(name, f"{host}:{port} answers")
    except OSError as error:
        return _warning(
            name,
            f"{host}:{port} cannot be reached: {error}",
            "The device runs on without it. Check the network, the name and the firewall.",
        )


def _clock(patient: Patient) -> Iterator[Finding]:
    now = time.time()
    if now < EARLIEST_S:
        yield _warning(
            "clock",
            f"it says {time.strftime('%Y-%m-%d', time.gmtime(now))}, so it was never set",
            "Allow NTP (timedatectl set-ntp true); until then the fleet's signed time is used.",
        )
        return
    proven = _state(patient.agent).proven if patient.agent is not None else 0.0
    if proven and now < proven - CLOCK_OFF_S:
        yield _warning(
            "clock",
            f"it is {proven - now:.0f} seconds behind a time that the fleet has proven",
            "Allow NTP: timedatectl set-ntp true",
        )
        return
    has_rtc = (patient.root / "sys/class/rtc/rtc0").exists()
    yield _good("clock", "it is set" + ("" if has_rtc else "; there is no battery clock (RTC)"))


def _disk(patient: Patient) -> Iterator[Finding]:
    folder = Path(patient.agent.data_dir) if patient.agent is not None else Path.cwd()
    usage = shutil.disk_usage(folder)
    said = f"{usage.free >> 20:,} MB of {usage.total >> 20:,} MB are free at {folder}"
    if usage.free < max(FREE_BYTES, FREE_SHARE * usage.total):
        yield _bad("disk", said, "Remove what is not needed: an update needs room for two models.")
    elif not os.access(folder, os.W_OK):
        yield _bad(
            "disk", f"this user may not write to {folder}", f"Run: chown -R edgeml: {folder}"
        )
    else:
        yield _good("disk", said)


def _memory(patient: Patient) -> Iterator[Finding]:
    said = files.text(patient.root / "proc/meminfo")
    found = re.search(r"^MemAvailable:\s*(\d+) kB", said, re.MULTILINE)
    if found is None:
        yield _warning("memory", "the kernel does not tell how much is free", "See: free -m")
        return
    free = int(found[1]) * 1024
    text = f"{free >> 20:,} MB of {patient.capabilities.memory_bytes >> 20:,} MB are available"
    if free < FREE_MEMORY:
        yield _bad("memory", text, "Stop other programs, or use a smaller model.")
    else:
        yield _good("memory", text)


def _heat(patient: Patient) -> Iterator[Finding]:
    warmest, share = hottest(patient.root), clock_share(patient.root)
    if warmest is None:
        yield _warning("heat", "the kernel tells no temperature", "Watch latency instead.")
    else:
        critical = critical_c(patient.root)
        said = f"{warmest.celsius:.0f} \N{DEGREE SIGN}C ({warmest.zone})"
        said += f", the limit is {critical:.0f}" if critical else ""
        if critical and warmest.celsius > critical - NEAR_C:
            yield _bad("heat", said, "Cool it: a heat sink, a fan, shade; or a lower frame rate.")
        else:
            zones = len(temperatures(patient.root))
            yield _good("heat", f"{said}; {zones} zone{'s' if zones > 1 else ''}")
    if share < HELD_BACK:
        yield _warning(
            "clock rate",
            f"the processor is held back to {share:.0%} of its clock",
            "Cool it, check the power supply, or lift the limit: cpupower frequency-info",
        )


def _state(agent: AgentConfig) -> DeviceState:
    return read_state(Path(agent.data_dir) / "state.json")


def _good(check: str, said: str) -> Finding:
    return Finding(check=check, grade=Grade.GOOD, said=said)


def _warning(check: str, said: str, fix: str) -> Finding:
    return Finding(check=check, grade=Grade.WARNING, said=said, fix=fix)


def _bad(check: str, said: str, fix: str) -> Finding:
    return Finding(check=check, grade=Grade.BAD, said=said, fix=fix)


_CHECKS: dict[str, Callable[[Patient], Iterator[Finding]]] = {
    "runtime": _runtime,
    "identity": _identity,
    "sources": _sources,
    "fleet": _fleet,
    "clock": _clock,
    "disk": _disk,
    "memory": _memory,
    "heat": _heat,
}
