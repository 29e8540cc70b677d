"""Reads one JSON request, lets a runner answer it, and writes one JSON reply.

Run as `python serve.py RUNNER answer` or `python serve.py RUNNER check`. What libraries print
goes to standard error, so that only the reply is on standard output.
"""

import json
import os
import runpy
import sys


def main(runner: str, verb: str) -> None:
    """Serve one request."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        request = json.load(sys.stdin)
        functions = runpy.run_path(runner)
        reply = functions["answer"](request) if verb == "answer" else functions["check"]()
        json.dump(reply, replies)


if __name__ == "__main__":
    main(*sys.argv[1:])
