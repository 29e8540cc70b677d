"""Places where a test can kill the agent, as `kill -9` or a power loss would.

`EDGEML_FAILPOINT=name:kill` ends the process the first time it comes by `name`, without any
clean-up; `name:kill:3` the third time. Nothing happens while the variable is unset.
"""

import os
import signal

_WANTED, _, _REST = os.environ.get("EDGEML_FAILPOINT", "").partition(":")
_ACTION, _, _NTH = _REST.partition(":")
_left = int(_NTH) if _NTH.isdigit() else 1

NAMES = (
    "work-resolving",
    "document-stored",
    "work-downloading",
    "download-bytes",
    "downloaded-one",
    "work-verifying",
    "work-testing",
    "raced",
    "tested",
    "work-trial",
    "swap",
    "swapped",
    "tried",
    "journal-before",
    "journal-after",
    "collect",
    "collected",
)
"""Every place, in about the order in which an update comes by."""

TOGETHER_NAMES = ("work-prepared", "switching")
"""Those that an update comes by besides, where devices switch together."""

DELTA_NAMES = ("delta-applying", "delta-piece", "delta-applied")
"""Those that an update comes by besides, where a blob is put together from a delta."""

SAMPLE_NAMES = ("sample-piece", "sample-stored")
"""Those that a captured frame comes by on its way to the fleet."""


def reach(name: str) -> None:
    """End this process without any clean-up if it was asked to fail here."""
    global _left  # noqa: PLW0603 -- counts down to the n-th visit; nothing else may see it
    if name != _WANTED or _ACTION != "kill":
        return
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
