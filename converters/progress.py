"""What a conversion says while it works, on standard error: steps, counts, the best so far."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol


class Progress(Protocol):
    """Told by the conversion what it is doing."""

    def step(self, what: str, total: int = 0) -> None:
        """A new step has begun; `total` is how many `advance` calls it will take."""
        ...

    def advance(self, done: int) -> None:
        """The step has come this far."""
        ...

    def note(self, what: str) -> None:
        """A result or a warning that stays to be read."""
        ...


class Silent:
    """Says nothing; the default of the Python API."""

    def step(self, what: str, total: int = 0) -> None:
        """Say nothing."""

    def advance(self, done: int) -> None:
        """Say nothing."""

    def note(self, what: str) -> None:
        """Say nothing."""


class Terminal:
    """A live line where standard error is a terminal, plain lines where it is not."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True, highlight=False)
        self._live = self._console.is_terminal
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bars.add_task("", total=None)
        self._interrupted = False

    @contextmanager
    def running(self) -> Iterator["Terminal"]:
        """Show the live line for as long as the block runs, and stop at Ctrl-C between two steps.

        A KeyboardInterrupt that comes anywhere can tear what is under way, and Python drops one
        that comes where nothing can catch it. So the first Ctrl-C is noted and raised by the
        next step, sample or round; a second one is raised at once.
        """
        before = signal.getsignal(signal.SIGINT)
        if before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._interrupt)
        try:
            with self._bars:
                yield self
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _go_on(self) -> None:
        if self._interrupted:
            raise KeyboardInterrupt

    def step(self, what: str, total: int = 0) -> None:
        """Show the step, with a bar where its length is known."""
        self._go_on()
        if self._live:
            self._bars.remove_task(self._task)
            self._task = self._bars.add_task(what, total=total or None)
        else:
            self._print(what)

    def advance(self, done: int) -> None:
        """Move the bar."""
        self._go_on()
        self._bars.update(self._task, completed=done)

    def note(self, what: str) -> None:
        """Print a line that stays."""
        self._go_on()
        self._print(f"  {what}")

    def _print(self, what: str) -> None:
        self._console.print(what, markup=False, soft_wrap=True)
