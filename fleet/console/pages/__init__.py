"""The pages; a module registers its own when it is imported."""

import importlib
import pkgutil


def load() -> None:
    """Import all of them."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
