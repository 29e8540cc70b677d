"""What of the machine this process takes: priority, cores, and how its memory is handed out."""

import contextlib
import os

from edgeml.errors import UserError

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
    # glibc would keep an arena for every thread, each with what was freed in it.
    import ctypes

    # numpy multiplies nothing here; its threads would only wait and hold memory.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Give memory that was freed back to the system, as after a model was unloaded."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
