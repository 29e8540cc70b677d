"""A toolchain's process that answers one request after the other.

Starting a toolchain and what it imports takes longer than most of its answers. A service is
started once, while something else is at work, and is asked whenever there is a question:

    with Service(require("ai-edge-quantizer")) as quantizer:
        quantizer.begin({})  # an empty request imports what the others need
        ...
        reply = quantizer.ask(request)
"""

import os
import select
import subprocess
import tempfile
import time
from collections import deque
from contextlib import ExitStack, closing, suppress
from types import TracebackType
from typing import Any, Self

import msgspec

from converters.toolchains.command import ending, failed, kill
from converters.toolchains.exchange import (
    asked,
    decoded,
    environment_of,
    limit_s,
    longer,
    server_command,
)
from converters.toolchains.logs import Log
from converters.toolchains.store import Installed
from edgeml.errors import ToolchainError

_PIECE = 1 << 16


class Service:
    """An installed toolchain that was started; it ends with its `close`."""

    def __init__(self, toolchain: Installed, *, timeout_s: float = 600) -> None:
        self._definition = toolchain.definition
        self._timeout_s = limit_s(timeout_s)
        self._left = b""
        self._owed: deque[bool] = deque()  # of each request under way, whether somebody waits
        self._what = f"The toolchain {self._definition.name} failed."
        with ExitStack() as stack:
            self._log = stack.enter_context(closing(Log(self._definition.name)))
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeml-toolchain-"))
            command = server_command(toolchain, "answer")
            try:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._log.fileno(),
                    env=environment_of(self._definition),
                    cwd=folder,
                    start_new_session=True,
                )
            except OSError as error:
                why = f"{command[0]} cannot be started: {error.strerror}."
                raise ToolchainError(self._what, why=why, fix=self._fix) from None
            self._ending = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def begin(self, request: dict[str, Any]) -> None:
        """Send a request whose reply nobody waits for yet: `reply` or `settle` does."""
        assert self._child.stdin is not None
        encoded = msgspec.json.encode(request)
        self._log.say(asked(self._definition, encoded))
        with suppress(BrokenPipeError):  # the reply says why it is gone
            self._child.stdin.write(encoded + b"\n")
            self._child.stdin.flush()
        self._owed.append(bool(request))

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Let it answer a request; see `converters.toolchains.exchange.ask`."""
        self.begin(request)
        return self.reply()

    def reply(self) -> dict[str, Any]:
        """The answer to the first request that was begun and is not answered.

        Raises:
            ToolchainError: it failed, took too long or answered with no JSON object.
        """
        while self._owed:
            is_wanted, line = self._owed.popleft(), self._line()
            if is_wanted:
                return decoded(self._definition, line, self._log)
        raise AssertionError("a request is begun before its reply is waited for")

    def settle(self) -> None:
        """Wait until it does nothing: what is timed meanwhile would be disturbed."""
        while self._owed and not self._owed[0]:
            self._owed.popleft()
            self._line()

    def log(self) -> bytes:
        """All that it wrote so far; see `converters.toolchains.logs`."""
        return self._log.read()

    def close(self) -> None:
        """End it, whatever it does."""
        self._kill()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self._ending.close()

    def _line(self) -> bytes:
        """What it prints up to the end of a line."""
        assert self._child.stdout is not None
        until = time.monotonic() + self._timeout_s
        while b"\n" not in self._left:
            left_s = max(0.0, until - time.monotonic())
            if not select.select([self._child.stdout], [], [], left_s)[0]:
                self._kill()
                how = f"It gave no answer in {self._timeout_s:g} s and was killed."
                raise failed(self._what, how, self._log, longer(self._timeout_s))
            piece = os.read(self._child.stdout.fileno(), _PIECE)
            if not piece:
                how = f"It ended with {ending(self._child.wait())}."
                raise failed(self._what, how, self._log, self._fix)
            self._left += piece
        line, _, self._left = self._left.partition(b"\n")
        return line

    def _kill(self) -> None:
        if self._child.poll() is None:
            kill(self._child)
        self._child.wait()

    @property
    def _fix(self) -> str:
        return f"Run: edgeml toolchain doctor {self._definition.name}"
