"""Reads JSON requests, lets a runner answer each, and writes a JSON reply for each: a line of both.

Run as `python serve.py RUNNER answer` or `python serve.py RUNNER check`. An empty request only
imports what the others need. What libraries print goes to standard error, so that only replies
are on standard output.
"""

import json
import os
import runpy
import sys
from typing import Any


def main(runner: str, verb: str) -> None:
    """Serve requests until there are no more, or one check."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        functions = runpy.run_path(runner)
        if verb == "check":
            json.dump(functions["check"](), replies)
            return
        for line in sys.stdin:
            request = json.loads(line)
            reply = functions["answer"](request) if request else _prepared(functions)
            replies.write(json.dumps(reply) + "\n")
            replies.flush()


def _prepared(functions: dict[str, Any]) -> dict[str, Any]:
    functions.get("prepare", dict)()
    return {}


if __name__ == "__main__":
    main(*sys.argv[1:])
