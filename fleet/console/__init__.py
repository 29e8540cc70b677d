"""The console: the page that an operator keeps open, on the operators' listener.

NiceGUI draws it in the browser (ADR 3). `reader` says what is read, `view` decides what of it
is shown, `page` and `sections` show it; `feed` lets all open pages share one reading.
"""

from fastapi import FastAPI

from fleet.services.context import Services


def mount(app: FastAPI, services: Services) -> None:
    """Add the console to the operators' application, whose middleware lets nobody else in."""
    from fleet.console.page import mount_reader
    from fleet.console.reader import ServicesReader

    mount_reader(app, ServicesReader(services))


__all__ = ["mount"]
