"""Runs a module of edgeml in a toolchain's Python: `python -I run_module.py -m MODULE`.

edgeml's folder comes last on the path, so that all packages are the toolchain's own. What
libraries print goes to standard error: standard output is for the module's messages.
"""

import os
import runpy
import sys
from pathlib import Path


def main(module: str) -> None:
    """Run a module as if by `python -m`."""
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    messages = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(messages, "w", encoding="utf-8") as stream:
        sys.stdout = stream
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[-1])
