"""What the releases on devices let a site set: read from their pipelines in the registry."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fleet.db import tables
from fleet.services import desired, releases
from fleet.services.context import Services

_PIPELINE = "pipeline"


def forbidden(
    services: Services, session: Session, devices: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, str]:
    """Why devices would refuse settings: their release does not let a site set a parameter.

    What a release allows whose pipeline the registry does not have, the device itself decides.

    Returns:
        The reason by device, of those only that would refuse.
    """
    site: Mapping[str, Mapping[str, Any]] = settings.get("site", {})
    if not site:
        return {}
    table = tables.DesiredModel
    found: dict[str, str] = {}
    known: dict[tuple[str, str], frozenset[str] | None] = {}
    for names in desired.batched(devices, 500):
        query = select(table.device, table.model, table.release, table.variant).where(
            table.device.in_(names), table.model.in_(site)
        )
        for device, model, release, variant in session.execute(query):
            key = (release, variant)
            if key not in known:
                known[key] = _allowed(services, session, release, variant)
            allowed = known[key]
            refused = sorted(set(site[model]) - allowed) if allowed is not None else []
            if refused:
                may = ", ".join(sorted(allowed or ())) or "nothing"
                found[device] = (
                    f"its release of {model} does not let a site set {', '.join(refused)}; "
                    f"it allows {may}"
                )
    return found


def _allowed(
    services: Services, session: Session, release: str, variant: str
) -> frozenset[str] | None:
    row = session.get(tables.Release, release)
    if row is None:
        return None
    for known in releases.document(row).variants:
        for file in known.files:
            if known.digest == variant and file.role == _PIPELINE:
                return _of_pipeline(services.registry.blobs.path(file.digest))
    return None


def _of_pipeline(path: Path) -> frozenset[str] | None:
    """The parameters; None where there is no such pipeline."""
    try:
        allowed = tomllib.loads(path.read_text()).get("site", {}).get("allow", [])
    except (OSError, ValueError, AttributeError):
        return None
    return frozenset(map(str, allowed)) if isinstance(allowed, list) else None
