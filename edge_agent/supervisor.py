"""A tiny parent for the agent where no systemd looks after it.

It speaks systemd's own protocol (sd_notify(3)) with the agent: the agent says that it is well as
long as its loops turn, and is killed and started again when it has not for `PATIENCE_S`; what
ends by itself with an error is started again, too, after a pause that grows; a command that is
wrong (exit code 2) is not, since it stays wrong. It imports nothing of the agent, so that it
stays small and does not fail with it.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

PATIENCE_S = 30.0
START_S = 300.0
PAUSE_S = (1.0, 60.0)
STEADY_S = 60.0
TURN_S = 0.5
USAGE = 2  # edgeml.errors.ExitCode.USAGE: the same command would end the same way


def supervise(
    command: list[str], *, patience_s: float = PATIENCE_S, start_s: float = START_S
) -> int:
    """Run a command until it ends well or this process is asked to end.

    Args:
        command: what to run; it finds `NOTIFY_SOCKET` and `WATCHDOG_USEC` in its environment.
        patience_s: how long it may say nothing once it was up.
        start_s: how long it may take until it is up.

    Returns:
        Its exit status.
    """
    asked: list[int] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as listener:
        name = f"edgeml-agent-{os.getpid()}-{secrets.token_hex(4)}"
        listener.bind("\0" + name)
        listener.settimeout(TURN_S)
        environment = os.environ | {
            "NOTIFY_SOCKET": "@" + name,
            "WATCHDOG_USEC": str(int(patience_s * 1e6)),
        }
        environment.pop("WATCHDOG_PID", None)

        def note(number: int, _frame: FrameType | None) -> None:
            asked.append(number)

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, note)
        pause = PAUSE_S[0]
        while True:
            begun = time.monotonic()
            with subprocess.Popen(command, env=environment, process_group=0) as child:
                status = _watch(child, listener, asked, (start_s, patience_s))
            if asked or status == 0:
                return status if status >= 0 else 128 - status
            if status == USAGE:
                _say("the agent was started wrongly; it is not started again")
                return status
            if time.monotonic() - begun > STEADY_S:
                pause = PAUSE_S[0]
            _say(f"the agent ended with {status}; it is started again in {pause:.0f} s")
            _sleep(pause, asked)
            if asked:
                return 0
            pause = min(pause * 2, PAUSE_S[1])


def _watch(
    child: "subprocess.Popen[bytes]",
    listener: socket.socket,
    asked: list[int],
    patience: tuple[float, float],
) -> int:
    deadline = time.monotonic() + patience[0]
    forwarded = False
    while child.poll() is None:
        if asked and not forwarded:
            forwarded = True
            deadline = time.monotonic() + patience[1]
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(asked[0])
        try:
            said = listener.recv(4096).split(b"\n")
        except TimeoutError:
            said = []
        if b"READY=1" in said or b"WATCHDOG=1" in said:
            deadline = time.monotonic() + patience[1]
        if time.monotonic() > deadline:
            _say("the agent says nothing any more; it is killed")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    return int(child.returncode)


def _sleep(seconds: float, asked: list[int]) -> None:
    deadline = time.monotonic() + seconds
    while not asked and time.monotonic() < deadline:
        time.sleep(min(TURN_S, seconds))


def _say(sentence: str) -> None:
    print(f"edgeml: {sentence}", file=sys.stderr, flush=True)  # noqa: T201 -- it has no log


if __name__ == "__main__":
    sys.exit(supervise([sys.executable, "-m", "edgeml.cli", "agent", "run", *sys.argv[1:]]))
