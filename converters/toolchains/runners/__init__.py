"""Scripts that run inside toolchains, with those packages alone: nothing of edgeml is there.

Each has `answer(request) -> reply` and `check() -> reply`, which executes something small and
real; `serve.py` reads the request and writes the reply.
"""
