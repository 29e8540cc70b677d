"""What of the machine this process takes: priority, cores, and how its memory is handed out.

And how its threads share the interpreter: one that has it gives it up to an inference that ended
after `SWITCH_S`, where Python's own 5 ms would be as long as the inference of a small model.
"""

import contextlib
import os
import sys
from urllib.parse import urlsplit

from edgeml.errors import UserError

SWITCH_S = 0.002
_M_ARENA_MAX = -8
_ARENAS = 2


def take_place(nice: int, cpus: tuple[int, ...]) -> None:
    """Set priority and cores of this process; before it starts threads, which inherit them.

    Raises:
        UserError: it has no such core.
    """
    if cpus:
        try:
            os.sched_setaffinity(0, cpus)
        except OSError as error:
            has = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
            raise UserError(
                f"The agent cannot run on the cores {', '.join(map(str, cpus))}.",
                why=f"This process may use {has}.",
                fix="Change cpus in agent.toml.",
            ) from error
    if nice:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    sys.setswitchinterval(SWITCH_S)
    # glibc would keep an arena for every thread, each with what was freed in it.
    import ctypes

    # numpy multiplies nothing here; its threads would only wait and hold memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def use_proxy(address: str) -> None:
    """Have all HTTP of this process go through a proxy; empty: as the environment says.

    Raises:
        UserError: it is no proxy's address.
    """
    if not address:
        return
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UserError(
            "The proxy cannot be used.",
            why=f"proxy in agent.toml is {address[:200].rpartition('@')[2]!r}, no address.",
            fix="Write http://host:port, or http://name:password@host:port.",
        )
    for name in ("http_proxy", "https_proxy"):
        os.environ[name] = os.environ[name.upper()] = address


def give_back() -> None:
    """Give memory that was freed back to the system, as after a model was unloaded."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
