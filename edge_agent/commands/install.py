"""`edgeml agent install`: the systemd unit under which the agent runs for years.

The unit is `Type=notify` with a watchdog that the agent feeds, an unprivileged user of its own, a
system that is read-only to it, and only those devices that frames and models need. The memory
that onnxruntime and its like map is never executable and writable at once in the runtimes that
edgeml ships with, but accelerators' drivers compile: `MemoryDenyWriteExecute` is therefore left
out, and this is the one lock that is missing on purpose.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from cloud_sync.release import write_atomically
from edge_agent.api.options import ApiOptions, check
from edgeml.errors import DeviceError, UserError
from hardware.capabilities import Capabilities

UNIT = "edgeml-agent.service"
FOLDER = Path("/etc/systemd/system")
USER = "edgeml"
# systemd's names for classes of character devices, and groups that Linux distributions give them.
_ALWAYS = ("char-video4linux", "char-media", "char-alsa")
_HOMES = ("/home", "/root")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 -- the unit has its own: PrivateTmp
_GROUPS = ("video", "render", "audio", "plugdev")


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """What the unit is made of."""

    config: Path
    data: Path
    python: Path
    user: str = USER
    api: ApiOptions | None = None
    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    home: bool = False


def unit(
    config: Path, data: Path, capabilities: Capabilities, *, user: str, api: ApiOptions | None
) -> Unit:
    """What this device's unit has to say.

    Args:
        config: the agent.toml.
        data: the agent's data folder, the only one that it may write to.
        capabilities: their accelerators' device nodes are let in.
        user: to run as.
        api: where the local API is served, or None; its files are named from here.

    Raises:
        UserError, TrustError: the agent would refuse to serve it.
    """
    import grp

    if api is not None:
        api = _checked(api)

    known = {group.gr_name for group in grp.getgrall()}
    python = Path(sys.executable)
    return Unit(
        config=config.resolve(),
        data=data.resolve(),
        python=python,
        user=user,
        api=api,
        devices=tuple(dict.fromkeys(_node(a.path) for a in capabilities.accelerators if a.path)),
        groups=tuple(group for group in _GROUPS if group in known),
        home=any(_below(path, _HOMES) for path in (python, data, config)),
    )


def _checked(api: ApiOptions) -> ApiOptions:
    """The options as `edgeml agent run` would take them, with whole paths."""
    from edge_agent.api.server import tls_of

    tls_of(check(api))
    files = {
        name: str(Path(value).resolve()) if (value := getattr(api, name)) else ""
        for name in ("token_file", "certificate", "key")
    }
    return msgspec.structs.replace(api, **files)


def warnings(found: Unit) -> list[str]:
    """What may keep the unit from running as it stands, each a sentence or two."""
    said = []
    if _below(found.python, _HOMES):
        said.append(
            f"The interpreter {found.python} lies below a home folder, which {found.user} may not "
            "be able to enter. Install edgeml into a folder such as /opt/edgeml."
        )
    elif _below(found.python, _TEMPORARY):
        said.append(
            f"The interpreter {found.python} lies below a temporary folder, which the unit does "
            "not see. Install edgeml into a folder such as /opt/edgeml."
        )
    said += [
        f"{path} lies below a temporary folder, which the unit does not see and a restart of the "
        "machine empties. Enrol with --data below /var/lib."
        for path in dict.fromkeys((found.data, found.config.parent))
        if _below(path, _TEMPORARY)
    ]
    if found.api is not None:
        said += [
            f"{file} lies outside of {found.data}: {found.user} has to be able to read it."
            for file in (found.api.token_file, found.api.certificate, found.api.key)
            if file and not Path(file).is_relative_to(found.data)
        ]
    return said


def _below(path: Path, folders: tuple[str, ...]) -> bool:
    """Also where a link on the way leads there."""
    return any(each.is_relative_to(folder) for each in (path, path.resolve()) for folder in folders)


def _node(path: str) -> str:
    """A device as systemd lets it in; one on USB has another number after each plugging."""
    return "char-usb_device" if path.startswith("/dev/bus/usb/") else path


def text(found: Unit) -> str:
    """The unit's text."""
    command = f"{_word(found.python)} -m edge_agent.service --config {_word(found.config)}"
    if found.api is not None:
        given = {
            "--api": found.api.listen,
            "--api-token": found.api.token_file,
            "--api-certificate": found.api.certificate,
            "--api-key": found.api.key,
        }
        command += "".join(f" {name} {_word(value)}" for name, value in given.items() if value)
    allow = [f"DeviceAllow={name} rw" for name in (*_ALWAYS, *found.devices)]
    groups = [f"SupplementaryGroups={' '.join(found.groups)}"] if found.groups else []
    lines = [
        "# Written by `edgeml agent install`; change it with `systemctl edit edgeml-agent`.",
        "[Unit]",
        "Description=edgeml agent: runs models on this device",
        "# It runs without a network and looks for the fleet when there is one.",
        "After=network.target time-set.target",
        "# It comes back after every end; a crash loop is the agent's to break.",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=notify",
        "NotifyAccess=main",
        f"ExecStart={command}",
        "Restart=always",
        "RestartSec=3",
        "# Loading a large model on a slow card takes its time; then word comes twice a minute.",
        "TimeoutStartSec=300",
        "WatchdogSec=60",
        "TimeoutStopSec=15",
        "KillMode=mixed",
        "OOMPolicy=stop",
        f"User={found.user}",
        *groups,
        "UMask=0077",
        "",
        "# What it may write to: its data, and a folder for the local API's socket.",
        f"ReadWritePaths={_word(found.data)}",
        "RuntimeDirectory=edgeml-agent",
        "RuntimeDirectoryMode=0750",
        "ProtectSystem=strict",
        f"ProtectHome={'read-only' if found.home else 'yes'}",
        "PrivateTmp=yes",
        "",
        "# Which devices it may open: cameras, microphones and the accelerators found here.",
        "DevicePolicy=closed",
        *allow,
        "",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "AmbientCapabilities=",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "PrivateMounts=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "ProtectKernelLogs=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelTunables=yes",
        "ProtectProc=invisible",
        "RemoveIPC=yes",
        "SystemCallArchitectures=native",
        "SystemCallFilter=@system-service",
        "SystemCallFilter=~@privileged @resources",
        "SystemCallFilter=sched_setaffinity setpriority sched_setscheduler",
        "SystemCallErrorNumber=EPERM",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return "\n".join(lines)


def install(found: Unit, folder: Path = FOLDER) -> list[str]:
    """Make the user, hand it the data, write the unit and start it; returns what was done.

    Raises:
        UserError: this is not root, or the user cannot be made.
        DeviceError: there is no systemd here, or it refuses the unit.
    """
    if os.geteuid() != 0:
        raise UserError(
            "The unit was not installed.",
            why=f"Only root may write to {folder}.",
            fix="Run it with sudo, or see the unit first: edgeml agent install --print",
        )
    if shutil.which("systemctl") is None:
        raise DeviceError(
            "The unit was not installed.",
            why="There is no systemd here.",
            fix="Have your supervisor run: edgeml agent run --config FILE",
        )
    done = []
    if not _exists(found.user):
        _run(
            [
                *("useradd", "--system", "--no-create-home", "--home-dir", str(found.data)),
                *("--shell", "/usr/sbin/nologin", found.user),
            ]
        )
        done.append(f"user {found.user} made")
    _run(["chown", "-R", "--no-dereference", f"{found.user}:", str(found.data)])
    done.append(f"{found.data} belongs to {found.user}")
    write_atomically(folder / UNIT, text(found).encode(), 0o644)
    done.append(f"{folder / UNIT} written")
    if Path("/run/systemd/system").is_dir():
        _run(["systemctl", "daemon-reload"])
        _run(["systemctl", "enable", "--now", UNIT])
        done.append(f"{UNIT} runs, and starts with the machine")
    else:
        done.append("systemd does not run here; the unit starts with the machine once enabled")
    return done


def _exists(user: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no word"]
        raise DeviceError(f"{' '.join(command[:2])} failed.", why=f"{said[0]}.")


def _word(value: object) -> str:
    """A word of a unit file: `%` and `$` are systemd's own, blanks are quoted."""
    escaped = str(value).replace("%", "%%").replace("$", "$$")
    plain = not set(escaped) & set(" \"'\\\t")
    return escaped if plain else json.dumps(escaped, ensure_ascii=False)
