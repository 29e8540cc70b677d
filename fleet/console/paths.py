"""Where the console's pages are."""

from urllib.parse import quote, urlencode

PATH = "/console"


def to(path: str, **query: str) -> str:
    """The address of a page of the console.

    >>> to("/devices", selector="site=north")
    '/console/devices?selector=site%3Dnorth'
    """
    kept = {name: value for name, value in query.items() if value}
    return f"{PATH}{path}" + (f"?{urlencode(kept)}" if kept else "")


def device(name: str) -> str:
    """The address of a device's page."""
    return to(f"/devices/{quote(name, safe='')}")


def rollout(name: str) -> str:
    """The address of a rollout's page."""
    return to(f"/rollouts/{quote(name, safe='')}")


def model(name: str) -> str:
    """The address of a model's page."""
    return to(f"/models/{quote(name, safe='')}")


def release(model: str, version: str) -> str:
    """The address of a release's page."""
    return to(f"/releases/{quote(model, safe='')}/{quote(version, safe='')}")
