"""The console: the page that an operator keeps open, on the operators' listener.

NiceGUI draws it in the browser (ADR 3); `view` decides what is shown, `page` shows it.
"""

from fleet.console.page import mount

__all__ = ["mount"]
