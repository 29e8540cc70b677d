"""`edgeml demo`: options and exit code of the demonstration."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    *,
    once: Annotated[
        bool, typer.Option("--once", help="End when the story is told and write summary.json.")
    ] = False,
    folder: Annotated[
        Path, typer.Option("--dir", help="Where the demo keeps its files; emptied at the start.")
    ] = Path(".edgeml/demo"),
    port: Annotated[int, typer.Option(help="Port of the console and the REST API.")] = 8080,
    device_port: Annotated[int, typer.Option(help="Port that the devices talk to.")] = 8081,
    mqtt_port: Annotated[int, typer.Option(help="Port of the embedded MQTT broker.")] = 1883,
    browser: Annotated[
        bool, typer.Option(help="Open the console in a browser, where there is one.")
    ] = True,
) -> None:
    """Show the whole loop on this machine, with real processes.

    Converts a digits model, starts a fleet server and four agents that watch a conveyor
    belt (one of them on a simulated FPGA, where Verilator and g++ are installed), rolls out
    release 1.0.0, tries the bad 1.1.0 (the canary takes itself back and the fleet halts), then
    rolls out 1.2.0, which was trained for worse light. The story can be followed in the console:
    a link logs in, and each step names the page that shows it. Exits non-zero if a promise did
    not hold.
    """
    from edgeml.demo.setting import Ports
    from edgeml.demo.story import tell

    ports = Ports(port, device_port, mqtt_port)
    held = tell(folder.resolve(), ports, once=once, browser=browser and not once)
    if not held:
        raise typer.Exit(1)
