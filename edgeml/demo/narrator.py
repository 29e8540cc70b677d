"""How the demo tells its story: headings, the commands a user would type, and live progress."""

import re
import shlex
import sys
import textwrap
from collections.abc import Iterable, Sequence

import typer

WIDTH = 88


class Narrator:
    """Prints to standard output; on a terminal the progress line is rewritten in place."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._open = False
        self._last = ""

    def chapter(self, title: str) -> None:
        """Begin a part of the story."""
        self._close()
        typer.secho(f"\n{title}", bold=True)

    def say(self, text: str) -> None:
        """A sentence or two, wrapped."""
        self._close()
        typer.echo(textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  "))

    def command(
        self, arguments: Sequence[str], environment: Iterable[tuple[str, str]] = ()
    ) -> None:
        """The command that does the next step, as a user would type it."""
        self._close()
        set_first = "".join(f"{name}={shlex.quote(value)} " for name, value in environment)
        typer.secho(f"  $ {set_first}edgeml {shlex.join(arguments)}", fg=typer.colors.CYAN)

    def page(self, address: str, shows: str) -> None:
        """The page of the console that shows what is being told."""
        self._close()
        typer.echo("  " + typer.style("-> ", fg=typer.colors.BLUE) + address)
        typer.echo(textwrap.fill(shows, WIDTH, initial_indent="     ", subsequent_indent="     "))

    def good(self, text: str) -> None:
        """Something that came out as promised."""
        self._mark("ok", text, typer.colors.GREEN)

    def bad(self, text: str) -> None:
        """Something that did not."""
        self._mark("NO", text, typer.colors.RED)

    def progress(self, text: str) -> None:
        """Where a step stands; said once a change where there is no terminal."""
        # Off a terminal a countdown is one line, not one a second.
        gist = text if self._live else re.sub(r"[0-9]+", "", text)
        if gist == self._last:
            return
        self._last = gist
        if self._live:
            sys.stdout.write(f"\r\x1b[2K  .. {text[: WIDTH - 6]}")
            sys.stdout.flush()
            self._open = True
        else:
            typer.echo(f"  .. {text}")

    def _mark(self, mark: str, text: str, colour: str) -> None:
        self._close()
        typer.echo("  " + typer.style(mark, fg=colour, bold=True) + f" {text}")

    def _close(self) -> None:
        if self._open:
            sys.stdout.write("\r\x1b[2K")
            self._open = False
        sys.stdout.flush()
