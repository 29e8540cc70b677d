"""The command `edgeml simulate`."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet.commands.connection import (
    DATA,
    FLEET,
    AsJson,
    Data,
    FleetUrl,
    Token,
    connect,
    parse_labels,
    show,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fleet.simulator.running import Simulator
    from fleet.simulator.tally import Summary

IDENTITIES = Path("~/.local/share/edgeml/simulator")
_TOKEN_S = 3600.0


def simulate(
    *,
    devices: Annotated[int, typer.Option(help="How many devices.")] = 100,
    devices_url: Annotated[
        str, typer.Option(help="The fleet's listener for devices.")
    ] = "http://127.0.0.1:8081",
    identities: Annotated[
        Path, typer.Option(help="Folder of the devices' keys; a later run goes on with them.")
    ] = IDENTITIES,
    seconds: Annotated[float, typer.Option(min=0, help="End after this time; 0: at Ctrl-C.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same devices.")] = 1,
    classes: Annotated[
        Path | None, typer.Option(help="TOML file of hardware classes; see docs/simulate.md.")
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            "--fault",
            help="FAULT=SHARE, such as slow=5%; may be given again. Faults: fails-test, crashes, "
            "slow, vanishes, late, lies, refuses, small-budget, clock-off.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="KEY=VALUE for every device; may be given again."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="What the devices' names begin with.")] = "sim",
    sites: Annotated[int, typer.Option(min=1, help="Spread over so many labels site=.")] = 10,
    telemetry: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds between telemetry; 0: none. As the fleet configures."),
    ] = None,
    poll: Annotated[
        float, typer.Option(min=1, help="Seconds between a device's questions over HTTPS.")
    ] = 300.0,
    fps: Annotated[float, typer.Option(min=0.1, help="Frames a second on each device.")] = 10.0,
    late: Annotated[float, typer.Option(min=0, help="Seconds that a late device is away.")] = 30.0,
    ramp: Annotated[float, typer.Option(min=0, help="Seconds in which all come up.")] = 0.0,
    downloads: Annotated[
        int, typer.Option(min=1, help="HTTPS connections that are open at a time.")
    ] = 64,
    tuf: Annotated[
        bool, typer.Option("--tuf", help="Every device follows TUF before it takes a release.")
    ] = False,
    ca: Annotated[str, typer.Option(help="CA of the device listener's certificate, PEM.")] = "",
    fleet: FleetUrl = FLEET,
    token: Token = "",
    data: Data = DATA,
    as_json: AsJson = False,
) -> None:
    """Run many simulated devices against a fleet, on this machine.

    Each has its own key and certificate, verifies what the fleet signs, resolves its variant,
    downloads and verifies the bytes, and reports signed evidence drawn from a model of its
    hardware class. Faults strike the shares that --fault says. Ctrl-C ends it; the devices stay
    enrolled, and the same command goes on with them.
    """
    from fleet.simulator.hardware_classes import read_classes
    from fleet.simulator.population import parse_faults
    from fleet.simulator.running import Options, Simulator
    from fleet.simulator.show import summary_text

    options = Options(
        fleet=devices_url.rstrip("/"),
        identities=identities.expanduser(),
        devices=devices,
        seed=seed,
        prefix=prefix,
        faults=parse_faults(fault or []),
        labels=parse_labels(label or []),
        sites=sites,
        http_at_once=downloads,
        ramp_s=ramp,
        poll_s=poll,
        telemetry_s=telemetry,
        fps=fps,
        late_s=late,
        tuf=tuf,
        ca=ca,
    )
    kinds = read_classes(classes)

    def tokens(wanted: "Mapping[str, Mapping[str, str]]") -> dict[str, str]:
        with connect(fleet, token, data) as client:
            made = client.enroll_many(wanted, _TOKEN_S, "simulated devices")
        return {one["device"]: one["token"] for one in made}

    simulator = Simulator(options, kinds, tokens)
    summary = _run(simulator, seconds)
    import msgspec

    body: dict[str, Any] = msgspec.to_builtins(summary)
    show(body, summary_text(summary), as_json=as_json)


def _run(simulator: "Simulator", seconds: float) -> "Summary":
    """Run until Ctrl-C, SIGTERM or the time is over; progress goes to standard error."""
    import uvloop

    from fleet.simulator.show import progress_text

    live = sys.stderr.isatty()
    last = ""

    def tell(summary: "Summary") -> None:
        nonlocal last
        text = progress_text(summary)
        if text == last:
            return
        last = text
        sys.stderr.write(f"\r\x1b[K{text}" if live else f"{text}\n")
        sys.stderr.flush()

    async def run() -> "Summary":
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        if seconds:
            loop.call_later(seconds, stop.set)
        return await simulator.run(stop, tell)

    try:
        return uvloop.run(run())
    finally:
        if live:
            sys.stderr.write("\n")
