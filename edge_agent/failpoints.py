"""Places where a test can kill the agent: `EDGEML_FAILPOINT=name` ends it there, as `kill -9`.

Nothing happens while the variable is unset.
"""

import os
import signal

_NAME = os.environ.get("EDGEML_FAILPOINT", "")


def reach(name: str) -> None:
    """End this process without any clean-up if it was asked to fail here."""
    if name == _NAME:
        os.kill(os.getpid(), signal.SIGKILL)
