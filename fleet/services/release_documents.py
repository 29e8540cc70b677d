"""What travels with a release for people: the converter's report, and what it was made of."""

from typing import Any

import msgspec

from cloud_sync.release import Release, oci
from edgeml.errors import ReleaseError
from fleet.problem import NotFound
from fleet.services import releases
from fleet.services.context import Services

REPORT = "report.html"
_MAX_REPORT = 8 << 20
_MAX_RECIPE = 16 << 20


def report(services: Services, model: str, version: str) -> str:
    """The converter's report, HTML that somebody else wrote: show it where it can do nothing.

    Raises:
        NotFound: there is no such release, or it came without a report.
        ReleaseError: what it points to is damaged.
    """
    release = _release(services, model, version)
    read = services.registry.blobs.read
    for entry in services.registry.referrers(model, release.digest):
        if entry.artifact_type != oci.EVIDENCE_ARTIFACT:
            continue
        data = read(entry.digest, oci.MAX_DOCUMENT_BYTES)
        for layer in oci.from_json(data, oci.Manifest, "evidence").layers:
            if layer.annotations.get(oci.FILEPATH) == REPORT:
                return read(layer.digest, _MAX_REPORT).decode(errors="replace")
    raise NotFound(
        f"{release.name} came without a report.",
        why="It was pushed without the converter's evidence.",
        fix="Push the folder that edgeml convert wrote: edgeml releases push FOLDER",
    )


def inputs(services: Services, model: str, version: str) -> dict[str, Any]:
    """What a release was made of and with, as its recipe says; nothing where it has none.

    Raises:
        NotFound: there is no such release.
    """
    for variant in _release(services, model, version).variants:
        recipe = variant.find("recipe")
        if recipe is None:
            continue
        try:
            found = msgspec.json.decode(services.registry.blobs.read(recipe.digest, _MAX_RECIPE))
        except (ReleaseError, msgspec.DecodeError):
            continue
        if isinstance(found, dict):
            return {"inputs": found.get("inputs", {}), "tools": found.get("tools", {})}
    return {}


def _release(services: Services, model: str, version: str) -> Release:
    with services.database.read() as session:
        return releases.document(releases.require(session, model, version))
