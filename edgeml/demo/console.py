"""The demo in the console: the link that leads there, and the page that shows each step.

The link logs in once; the pages that are named later open in the same browser.
"""

import os
import sys
import webbrowser
from collections.abc import Callable
from urllib.parse import quote

from edgeml.demo.narrator import Narrator

_IN_A_WINDOW = ("DISPLAY", "WAYLAND_DISPLAY")


class Console:
    """Says where each part of the story can be seen.

    Args:
        fleet: the address of the operators' listener.
        narrator: says it.
        opens: whether to open a browser, where there is one with a window.
    """

    def __init__(self, fleet: str, narrator: Narrator, *, opens: bool) -> None:
        self._address = f"{fleet}/console"
        self._narrator = narrator
        self._opens = opens
        self._told: dict[str, str] = {}

    def invite(self, login_link: Callable[[], str]) -> None:
        """Lead to the console, logged in, and open it; `login_link` makes a link for one use."""
        if self._opens and open_window(login_link()):
            self._narrator.say("The console is open in your browser: watch it there.")
        else:
            self._narrator.say("Watch it in the console. This link logs in, once:")
            self._narrator.page(login_link(), "the overview: everything that follows is seen there")

    def devices(self) -> None:
        """The devices have come."""
        self._show("/devices", "the devices: who is there, and what each of them runs")

    def simulated(self, device: str) -> None:
        """One of them is a simulated FPGA."""
        self._show(f"/devices/{quote(device)}", f"{device}, which says that its FPGA is simulated")

    def rollout(self, model: str, version: str, rollout: str) -> None:
        """A release was converted, pushed and is being rolled out."""
        self._show(
            f"/releases/{quote(model)}/{quote(version)}",
            f"{version} as it was published: variants, who signed it, the converter's report",
        )
        self._show(
            f"/rollouts/{quote(rollout)}",
            f"{version} in its waves, live: why it waits or goes on, with each gate as a plot",
        )

    def halted(self, rollout: str, canary: str) -> None:
        """A gate stopped a rollout, and the canary went back."""
        self._show(f"/rollouts/{quote(rollout)}", "which gate stopped it, by how much, and when")
        self._show("/#alerts", "the alert that it raised")
        if canary:
            self._show(f"/devices/{quote(canary)}?tab=history", f"how {canary} took itself back")

    def measured(self, model: str, one: str, other: str) -> None:
        """All is rolled out, and was measured."""
        self._show(
            f"/compare?one={quote(f'{model}:{one}')}&other={quote(f'{model}:{other}')}",
            f"{one} and {other} side by side",
        )
        self._show("/monitoring?quick=15m", "latency, rate and confidence of each release")
        self._show("/audit", "who did what, when and why; whether the chain of hashes holds")

    def recall(self, login_link: Callable[[], str]) -> None:
        """At the end: a fresh link, and the pages of the story in their order."""
        self._narrator.say("The whole story is in the console. This link logs in, once:")
        self._narrator.page(login_link(), "then, page by page:")
        for address, shows in self._told.items():
            self._narrator.page(address, shows)

    def _show(self, path: str, shows: str) -> None:
        self._told[f"{self._address}{path}"] = shows
        self._narrator.page(f"{self._address}{path}", shows)


def open_window(address: str) -> bool:
    """Open a page in a browser with a window; says whether there was one.

    A browser in the terminal would take the place of the story.
    """
    if sys.platform == "linux" and not any(map(os.environ.get, _IN_A_WINDOW)):
        return False
    try:
        return webbrowser.open(address, new=2)
    except webbrowser.Error:
        return False
