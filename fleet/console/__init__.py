"""The console: the pages that an operator keeps open, on the operators' listener.

NiceGUI draws them in the browser (ADR 3). `shell` is the frame and what a page works with, `parts`
is what pages are made of, `pages` holds them, and `views` decides, purely, what they show.
"""

from fastapi import FastAPI

from fleet.services.context import Services


def mount(app: FastAPI, services: Services) -> None:
    """Add the console to the operators' application, whose middleware lets nobody else in."""
    from fleet.console import pages
    from fleet.console.shell import mount_pages

    pages.load()
    mount_pages(app, services)


__all__ = ["mount"]
