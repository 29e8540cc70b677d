"""The installed version of edgeml."""

from importlib import metadata


def version() -> str:
    """The version, as the package metadata has it."""
    return metadata.version("edgeml")
