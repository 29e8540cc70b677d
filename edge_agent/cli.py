"""`edgeml agent`: enrol a device, run its daemon, look at it, try and measure releases on it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from edge_agent.commands.trying import Figures

app = typer.Typer(
    help="The daemon on a device: enrol it, run it, look at it; try and measure releases.",
    no_args_is_help=True,
)

_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Config = Annotated[Path, typer.Option(help="The agent.toml that enrolling wrote.")]
_MaybeConfig = Annotated[
    Path | None, typer.Option(help="The agent.toml of this device, where it is enrolled.")
]
_Release = Annotated[Path, typer.Argument(help="A release folder, as `edgeml convert` writes it.")]
_Version = Annotated[str, typer.Option(help="Of the release, where the folder has several.")]
_Runtime = Annotated[str, typer.Option(help="Use this runtime only: onnxruntime, openvino, ...")]
_Threads = Annotated[int, typer.Option(help="Use this number of threads only.", min=0)]
_Api = Annotated[
    str,
    typer.Option(
        metavar="ADDRESS",
        help="Open the local API: 127.0.0.1:8093, or unix:/path. Others on the network are let "
        "in only with a token and a certificate.",
    ),
]
_ApiToken = Annotated[str, typer.Option(metavar="FILE", help="A file with the API's token.")]
_ApiCertificate = Annotated[str, typer.Option(metavar="PEM", help="The API's certificate.")]
_ApiKey = Annotated[str, typer.Option(metavar="PEM", help="The key of that certificate.")]


def _finite(value: float | None) -> float | None:
    """A range of the command line lets `nan` through, and infinity."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("It is no finite number.")
    return value


@app.command()
def enroll(
    *,
    device: Annotated[str, typer.Option(help="The device's id, for which the token was made.")],
    fleet: Annotated[str, typer.Option(help="The fleet's device listener, https://HOST:8081.")],
    token: Annotated[str, typer.Option(help="The one-time token of `edgeml fleet enroll`.")],
    data: Annotated[Path, typer.Option(help="A new folder for the device's identity and data.")],
    as_json: _Json = False,
) -> None:
    """Trade a one-time token for an identity and write DATA/agent.toml.

    The device's key is made here and never leaves the device.
    """
    from edge_agent.commands.greeting import greet
    from edge_agent.trust.identity import enroll_device
    from edgeml.errors import EdgemlError

    config = enroll_device(fleet, device, token, data)
    try:
        greet(config)
    except EdgemlError as error:
        typer.echo(f"The fleet does not know yet what this device is: {error}", err=True)
    if as_json:
        _print({"device": device, "config": str(config)})
    else:
        typer.echo(f"{device} is enrolled. Run it: edgeml agent run --config {config}")


@app.command()
def run(
    *,
    config: _Config,
    api: _Api = "",
    api_token: _ApiToken = "",
    api_certificate: _ApiCertificate = "",
    api_key: _ApiKey = "",
) -> None:
    """Run the daemon until Ctrl-C or SIGTERM.

    It runs what it last committed at once, with or without a network, and takes from the
    fleet its sources, its configuration and its updates. To have it run from boot on, see
    `edgeml agent install`.
    """
    from edge_agent.service import options, serve

    serve(config, options(api, api_token, api_certificate, api_key))


@app.command()
def status(*, config: _Config, as_json: _Json = False) -> None:
    """Say what this device runs and where an update stands, from its own journal."""
    import msgspec

    from edge_agent.trust.identity import load_config
    from edge_agent.update.journal import read_state

    agent = load_config(config)
    reported = read_state(Path(agent.data_dir) / "state.json").reported()
    if as_json:
        typer.echo(msgspec.json.encode(reported).decode())
        return
    typer.echo(
        f"{agent.device}: desired state ({reported.desired_epoch}, {reported.desired_counter})"
    )
    for model, state in reported.models.items():
        running = state.running_version or "nothing"
        typer.echo(f"  {model}: runs {running}, {state.phase} {state.reason}".rstrip())
    if not reported.models:
        typer.echo("  no model yet; roll one out: edgeml rollout create --help")
    if reported.config_error:
        typer.echo(f"  configuration refused: {reported.config_error}")


@app.command()
def login(
    registry: Annotated[str, typer.Argument(help="Its address, https://registry.example.")],
    *,
    username: Annotated[str, typer.Option(help="Whose password it is; empty to log out.")],
    config: _Config,
) -> None:
    """Keep this device's credentials for a registry that is not the fleet's: a mirror.

    The password, or a token, is read from standard input. It stays on this device, in a file that
    no other user can read.
    """
    import sys

    from edge_agent.registry_login import log_in
    from edge_agent.trust.identity import load_config

    password = ""
    if username and sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, err=True)
    elif username:
        password = sys.stdin.readline().rstrip("\n")
    log_in(Path(load_config(config).data_dir), registry, username, password)
    typer.echo(f"{'Logged in to' if username else 'Logged out of'} {registry}.")


@app.command("import")
def import_bundle(
    bundle: Annotated[
        Path, typer.Argument(help="The folder or .tar file that `edgeml releases export` wrote.")
    ],
    *,
    config: _Config,
    timeout: Annotated[
        float,
        typer.Option(help="Seconds to wait for its test and trial.", min=1, callback=_finite),
    ] = 1800.0,
    as_json: _Json = False,
) -> None:
    """Install a release that somebody has brought on a stick, without any network.

    It is checked as if it had come over the network: the fleet's signatures, this device, the
    version, every digest; then it is tested here and tried. An agent that runs on this device
    takes it over; else one runs for as long as this takes. Exit code 3 if the device rolled it
    back or refused it, 7 if the fleet's signatures do not hold.
    """
    import msgspec

    from edge_agent.commands import importing
    from edgeml.errors import ExitCode

    found = importing.bring(bundle, config, timeout, lambda line: typer.echo(line, err=True))
    if as_json:
        _print(msgspec.to_builtins(found))
    for model, now in () if as_json else found.models.items():
        typer.echo(f"{model}:{now.version} {now.phase} {now.reason}".rstrip())
    if not found.is_installed:
        raise typer.Exit(ExitCode.GATE_FAILED)


@app.command("try")
def try_release(
    release: _Release,
    *,
    source: Annotated[
        str,
        typer.Option(
            help="A video, a folder of pictures, a .wav, /dev/video0, or an address such as "
            "rtsp://camera/stream."
        ),
    ],
    seconds: Annotated[
        float, typer.Option(help="End after this time; else at the end.", min=0, callback=_finite)
    ] = 0.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames a second, up to 1000; else the source's.",
            min=0.001,
            max=1000,
            callback=_finite,
        ),
    ] = None,
    annotate: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the results: .mp4 for all frames, .jpg the last."),
    ] = None,
    version: _Version = "",
    runtime: _Runtime = "",
    threads: _Threads = 0,
    api: _Api = "",
    api_token: _ApiToken = "",
    api_certificate: _ApiCertificate = "",
    api_key: _ApiKey = "",
    as_json: _Json = False,
) -> None:
    """Run a release on a video or a camera here, and see how it does. No fleet is needed.

    It runs as it would on a device: the release's best variant for this machine, on the first
    runtime that it names and that is installed here; --runtime chooses another. Ctrl-C ends it
    with the same figures. With --api 127.0.0.1:8093 the last frame and the figures can be
    watched in a browser meanwhile.
    """
    import msgspec

    from edge_agent.commands import trying
    from edge_agent.commands.local import local_release
    from edge_agent.service import options

    with (
        local_release(release, version=version, runtime=runtime, threads=threads) as local,
        _interruptible() as stop,
        _live(quiet=as_json) as show,
    ):
        found = trying.run(
            local,
            trying.source_of(source, fps, loop=loop),
            show=show,
            stop=stop,
            seconds=seconds,
            annotate=annotate,
            api=options(api, api_token, api_certificate, api_key),
        )
    if as_json:
        _print(msgspec.to_builtins(found.summary()))
        return
    typer.echo("\n".join(trying.lines(found)))
    if annotate is not None:
        typer.echo(f"{found.annotated:,} of {found.accepted:,} frames drawn: {annotate}")


@app.command()
def bench(
    release: _Release,
    *,
    minutes: Annotated[
        float,
        typer.Option(
            help="Let the quickest run on for so long, to see what heat does.",
            min=0,
            callback=_finite,
        ),
    ] = 0.0,
    out: Annotated[Path, typer.Option(help="Where the evidence is written, as JSON.")] = Path(
        "evidence.json"
    ),
    send: Annotated[
        bool, typer.Option("--send", help="Send the evidence to the fleet (needs --config).")
    ] = False,
    config: _MaybeConfig = None,
    version: _Version = "",
    runtime: _Runtime = "",
    threads: _Threads = 0,
    as_json: _Json = False,
) -> None:
    """Measure a release on this machine: every variant, runtime and number of threads that fit.

    Each is a process of its own that replays the golden set: it says whether this machine
    computes what was proven, how long an inference takes, and how much memory. The evidence is
    signed with the device's key where --config names an enrolled one.
    """
    import msgspec

    from edge_agent.commands import bench as benching
    from edge_agent.commands.local import local_release
    from edge_agent.trust.identity import load_identity
    from edgeml.errors import UserError

    if send and config is None:
        raise UserError(
            "The evidence cannot be sent.",
            why="Only an enrolled device can sign it.",
            fix="Name its agent.toml with --config.",
        )
    identity = load_identity(config) if config is not None else None
    with (
        local_release(release, version=version, runtime=runtime, threads=threads) as local,
        _interruptible() as stop,
    ):
        report = benching.run(
            local, say=lambda text: typer.echo(text, err=True), stop=stop, minutes=minutes
        )
    report, batch = benching.write(report, out, identity)
    if send and identity is not None and batch is not None:
        benching.send(batch, identity)
    if as_json:
        _print(msgspec.to_builtins(report))
        return
    typer.echo("\n".join(benching.lines(report)))
    typer.echo(f"evidence{' (signed)' if report.signed else ''}: {out}")
    if send:
        typer.echo("The fleet has stored it.")


@app.command()
def install(
    *,
    config: _Config,
    user: Annotated[str, typer.Option(help="The user it runs as; made if need be.")] = "edgeml",
    api: _Api = "",
    api_token: _ApiToken = "",
    api_certificate: _ApiCertificate = "",
    api_key: _ApiKey = "",
    print_only: Annotated[
        bool, typer.Option("--print", help="Print the unit and change nothing.")
    ] = False,
) -> None:
    """Have systemd run the agent from boot on, locked in and watched (needs root).

    The unit runs as a user of its own that may write to the device's data and nothing else, and
    open cameras, microphones and the accelerators found here. systemd starts it again when it
    ends, and when it says no word for a minute. --print shows the unit first.
    """
    from edge_agent.commands import install as installing
    from edge_agent.service import options
    from edge_agent.trust.first_boot import find
    from edge_agent.trust.identity import load_config
    from hardware.probes import probe

    # One that is not enrolled yet, on a disk image, finds its bootstrap file at its first boot.
    is_image = not config.exists() and find(config.parent) is not None
    data = config.parent if is_image else Path(load_config(config).data_dir)
    served = options(api, api_token, api_certificate, api_key)
    unit = installing.unit(config, data, probe(), user=user, api=served)
    for warning in installing.warnings(unit):
        typer.echo(f"warning: {warning}", err=True)
    if print_only:
        typer.echo(installing.text(unit), nl=False)
        return
    for done in installing.install(unit):
        typer.echo(done)
    typer.echo("Look at it: systemctl status edgeml-agent, journalctl -u edgeml-agent")


@app.command()
def doctor(
    *,
    config: _MaybeConfig = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="Look at this source instead of the configured ones."),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Examine this device: runtimes, camera, trust files, fleet, clock, disk, memory, heat.

    Says what to do about what is wrong. Exit code 9 if something is; warnings leave it at 0.
    """
    import msgspec

    from edge_agent.commands.doctor import Grade, Patient, examine
    from edge_agent.commands.trying import source_of
    from edge_agent.trust.identity import load_config
    from edgeml.errors import ExitCode
    from hardware.probes import probe

    findings = examine(
        Patient(
            capabilities=probe(),
            config=config,
            agent=load_config(config) if config is not None else None,
            sources=tuple(source_of(each, None, loop=False).uri for each in source or ()),
        )
    )
    bad = [finding for finding in findings if finding.grade is Grade.BAD]
    if as_json:
        _print({"healthy": not bad, "findings": msgspec.to_builtins(findings)})
    else:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            typer.echo(f"{finding.grade:<8} {finding.check:<{width}}  {finding.said}")
            if finding.fix:
                typer.echo(f"{'':<8} {'':<{width}}  -> {finding.fix}")
    if bad:
        raise typer.Exit(ExitCode.DEVICE)


def _print(body: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(body, indent=2))


def _interruptible() -> "AbstractContextManager[threading.Event]":
    """An event that the first Ctrl-C sets; a second one is Python's own."""
    import signal
    import threading
    from contextlib import contextmanager

    @contextmanager
    def block() -> "Iterator[threading.Event]":
        stop = threading.Event()
        before = signal.getsignal(signal.SIGINT)

        def handler(*_: object) -> None:
            signal.signal(signal.SIGINT, before)
            stop.set()

        signal.signal(signal.SIGINT, handler)
        try:
            yield stop
        finally:
            signal.signal(signal.SIGINT, before)

    return block()


def _live(*, quiet: bool) -> "AbstractContextManager[Any]":
    """Shows figures that change, on standard error where it is a terminal."""
    from contextlib import contextmanager, nullcontext

    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        return nullcontext(lambda _: None)

    @contextmanager
    def block() -> "Iterator[Any]":
        from rich.live import Live
        from rich.text import Text

        from edge_agent.commands.trying import lines

        with Live(console=console, transient=True, auto_refresh=False) as live:

            def show(figures: "Figures") -> None:
                live.update(Text("\n".join(lines(figures))), refresh=True)

            yield show

    return block()
