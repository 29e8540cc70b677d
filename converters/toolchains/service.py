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
import signal
import subprocess
import tempfile
import time
from collections import deque
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

import msgspec

from converters.toolchains.command import tail
from converters.toolchains.exchange import environment_of, no_answer, server_command
from converters.toolchains.store import Installed
from edgeml.errors import ToolchainError

_PIECE = 1 << 16


class Service:
    """An installed toolchain that was started; it ends with its `close`."""

    def __init__(self, toolchain: Installed, *, timeout_s: float = 600) -> None:
        self._definition = toolchain.definition
        self._timeout_s = timeout_s
        self._left = b""
        self._owed: deque[bool] = deque()  # of each request under way, whether somebody waits
        self._what = f"The toolchain {self._definition.name} failed."
        with ExitStack() as stack:
            self._said = stack.enter_context(tempfile.TemporaryFile())
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeml-toolchain-"))
            command = server_command(toolchain, "answer")
            try:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._said,
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
        with suppress(BrokenPipeError):  # the reply says why it is gone
            self._child.stdin.write(msgspec.json.encode(request) + b"\n")
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
                try:
                    return msgspec.json.decode(line, type=dict[str, Any])
                except msgspec.DecodeError:
                    raise no_answer(self._definition, line) from None
        raise AssertionError("a request is begun before its reply is waited for")

    def settle(self) -> None:
        """Wait until it does nothing: what is timed meanwhile would be disturbed."""
        while self._owed and not self._owed[0]:
            self._owed.popleft()
            self._line()

    def close(self) -> None:
        """End it, whatever it does."""
        if self._child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
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
                why = f"It gave no answer in {self._timeout_s:g} s.{self._last_words()}"
                raise ToolchainError(self._what, why=why, fix=self._fix)
            piece = os.read(self._child.stdout.fileno(), _PIECE)
            if not piece:
                why = f"It ended with {self._how_it_ended()}.{self._last_words()}"
                raise ToolchainError(self._what, why=why, fix=self._fix)
            self._left += piece
        line, _, self._left = self._left.partition(b"\n")
        return line

    def _how_it_ended(self) -> str:
        status = self._child.wait()
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def _last_words(self) -> str:
        self._said.seek(0)
        words = tail(self._said.read())
        return f" Its last words: {words}" if words else ""

    @property
    def _fix(self) -> str:
        return f"Run: edgeml toolchain doctor {self._definition.name}"
