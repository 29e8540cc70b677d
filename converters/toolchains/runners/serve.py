"""Reads JSON requests, lets a runner answer each, and writes a JSON reply for each: a line of both.

Run as `python serve.py RUNNER answer` or `python serve.py RUNNER check`. An empty request only
imports what the others need. What libraries print goes to standard error, the toolchain's log, so
that only replies are on standard output; at once, so that the log of one that is killed has it.
"""

import contextlib
import ctypes
import json
import os
import runpy
import sys
from typing import Any


def main(runner: str, verb: str) -> None:
    """Serve requests until there are no more, or one check."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        _print_lines()
        functions = runpy.run_path(runner)
        if verb == "check":
            json.dump(functions["check"](), replies)
            return
        for line in sys.stdin:
            request = json.loads(line)
            reply = functions["answer"](request) if request else _prepared(functions)
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


def _print_lines() -> None:
    """Let Python and C write each line when it ends: what they print into files, they hold back."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with contextlib.suppress(ValueError):  # of another C library, under another name
        stdout = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stdout")
        ctypes.CDLL(None).setvbuf(stdout, None, 1, 0)  # _IOLBF


def _prepared(functions: dict[str, Any]) -> dict[str, Any]:
    functions.get("prepare", dict)()
    return {}


if __name__ == "__main__":
    main(*sys.argv[1:])
