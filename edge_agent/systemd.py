"""What systemd wants to hear of a service: that it is up, that it is well, what it does.

The protocol is one datagram to the socket that `NOTIFY_SOCKET` names (sd_notify(3)); where the
agent was started by something else there is no such socket, and nothing is sent.
"""

import os
import socket

_MICROSECONDS = 1e6


def notify(
    *, ready: bool = False, stopping: bool = False, watchdog: bool = False, status: str = ""
) -> bool:
    """Tell the supervisor.

    Args:
        ready: the service is up.
        stopping: it is on its way down.
        watchdog: it is well; said again within `WatchdogSec`, or systemd starts it anew.
        status: one line for `systemctl status`.

    Returns:
        Whether it was sent: False where nobody listens. Nothing is raised, since a supervisor
        that does not hear is no reason to stop.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    lines = [
        *(["READY=1"] if ready else []),
        *(["STOPPING=1"] if stopping else []),
        *(["WATCHDOG=1"] if watchdog else []),
        *([f"STATUS={' '.join(status.split())}"] if status else []),
    ]
    if not address.startswith(("/", "@")) or not lines:
        return False
    if address.startswith("@"):  # the abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.setblocking(False)
            to.sendto("\n".join(lines).encode(), address)
    except OSError:
        return False
    return True


def watchdog_period_s() -> float | None:
    """How often to say `watchdog`: half of the time after which systemd gives this process up.

    None where no watchdog waits for this process.
    """
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        seconds = int(os.environ.get("WATCHDOG_USEC", "")) / _MICROSECONDS
    except ValueError:
        return None
    return seconds / 2 if seconds > 0 else None
