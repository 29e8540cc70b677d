"""Releases: what was pushed to the registry becomes something that rollouts can name."""

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import and_, func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cloud_sync.evidence import Evidence
from cloud_sync.release import Release, Variant, oci, read_evidence
from edgeml.errors import ReleaseError
from fleet.db import tables
from fleet.problem import Conflict, NotFound
from fleet.resources import EvidenceInfo, ModelInfo, Page, ReleaseInfo, VariantInfo
from fleet.rollouts.selector import EVERYTHING, Selector
from fleet.services import external, trust
from fleet.services.audit import audited
from fleet.services.columns import moment
from fleet.services.context import Caller, Services
from fleet.services.selection import chosen

_MAX_PAGE = 1000


def register(services: Services, caller: Caller, model: str, digest: str) -> ReleaseInfo:
    """Register a release that was pushed, with the evidence that came with it.

    Registering it again changes nothing.

    Raises:
        ReleaseError: it is incomplete, damaged, or of another model.
        Conflict: another release has its version already.
    """
    release = services.registry.release(digest)
    if release.model != model:
        raise ReleaseError(f"{digest} is {release.name}.", why=f"It was named as {model[:128]!r}.")
    row = _registered(services, caller, release)
    trust.sign_release(services, caller, release)
    with services.database.read() as session:
        return _info(row, trust.standing(services), external.read(session))


def _registered(services: Services, caller: Caller, release: Release) -> tables.Release:
    digest, model = release.digest, release.model
    records = _pushed_evidence(services, release)
    row = _known(services, release, digest)
    if row is not None:
        return row
    now = services.now()
    row = tables.Release(
        digest=digest,
        model=model,
        version=release.version,
        created_at=now,
        created_by=caller.actor,
        document=msgspec.json.encode(release).decode(),
    )
    try:
        with audited(services, caller, "release.register", release.name, digest=digest) as session:
            session.add(row)
            session.flush()
            session.add_all(
                tables.Evidence(
                    device=None,
                    model=model,
                    release=digest,
                    variant=record.variant[:71],
                    rollout="",
                    stage=record.stage[:16],
                    nonce="",
                    received_at=now,
                    document=msgspec.json.encode(record),
                    signed_batch=None,
                )
                for record in records
            )
    except IntegrityError:
        # Another registered it, or its version, since we looked.
        found = _known(services, release, digest)
        if found is None:
            raise
        return found
    return row


def _known(services: Services, release: Release, digest: str) -> tables.Release | None:
    """The row of a release that is registered already.

    Raises:
        Conflict: another release has its version.
    """
    with services.database.read() as session:
        known = session.get(tables.Release, digest)
        taken = None if known else find(session, release.model, release.version)
    if taken:
        raise Conflict(
            f"{release.name} exists already, as {taken.digest}.",
            why="A release is immutable.",
            fix="Give the new release another version.",
        )
    return known


def list_releases(services: Services, model: str = "") -> list[ReleaseInfo]:
    """All releases, or those of one model, newest first."""
    query = select(tables.Release).order_by(tables.Release.created_at.desc())
    if model:
        query = query.where(tables.Release.model == model)
    with services.database.read() as session:
        stands, there = trust.standing(services), external.read(session)
        return [_info(row, stands, there) for row in session.scalars(query)]


def show(services: Services, model: str, version: str) -> ReleaseInfo:
    """One release.

    Raises:
        NotFound: there is none such.
    """
    with services.database.read() as session:
        row = require(session, model, version)
        return _info(row, trust.standing(services), external.read(session))


def page(
    services: Services, *, model: str = "", after: str = "", limit: int = 100
) -> Page[ReleaseInfo]:
    """The releases, newest first; `after` is when the last one came, and its digest."""
    table = tables.Release
    query = select(table).order_by(table.created_at.desc(), table.digest).limit(limit + 1)
    if model:
        query = query.where(table.model == model)
    if after:
        at, digest = moment(after)
        later = and_(table.created_at == at, table.digest > digest)
        query = query.where(or_(table.created_at < at, later))
    with services.database.read() as session:
        rows = list(session.scalars(query))
        there = external.read(session)
    stands = trust.standing(services)
    last = rows[:limit][-1] if len(rows) > limit else None
    return {
        "items": [_info(row, stands, there) for row in rows[:limit]],
        "next": f"{last.created_at!r} {last.digest}" if last else None,
    }


def show_model(services: Services, model: str, scope: Selector = EVERYTHING) -> ModelInfo:
    """One model, with what runs where.

    Raises:
        NotFound: there is none such.
    """
    for found in list_models(services, scope):
        if found["model"] == model:
            return found
    raise NotFound(f"There is no model {model[:128]!r}.", fix="See them all: edgeml models list")


def list_models(services: Services, scope: Selector = EVERYTHING) -> list[ModelInfo]:
    """All models, with what runs on the devices of a scope."""
    running: dict[str, dict[str, int]] = {}
    with services.database.read() as session:
        counted = session.execute(
            select(
                tables.ReportedModel.model,
                tables.ReportedModel.running_version,
                func.count(),
            )
            .where(chosen(scope, tables.ReportedModel.device))
            .group_by(tables.ReportedModel.model, tables.ReportedModel.running_version)
        )
        for model, version, number in counted:
            if version:
                running.setdefault(model, {})[version] = number
        rows = list(session.scalars(select(tables.Release).order_by(tables.Release.created_at)))
    versions: dict[str, list[str]] = {}
    for row in rows:
        versions.setdefault(row.model, []).append(row.version)
    return [
        {
            "model": model,
            "releases": len(names),
            "latest": names[-1],
            "running": running.get(model, {}),
        }
        for model, names in sorted(versions.items())
    ]


def list_evidence(
    services: Services,
    *,
    release: str = "",
    rollout: str = "",
    device: str = "",
    stage: str = "",
    after: int = 0,
    limit: int = 100,
    scope: Selector = EVERYTHING,
) -> Page[EvidenceInfo]:
    """Evidence of converters and of a scope's devices, newest first."""
    table = tables.Evidence
    limit = max(1, min(limit, _MAX_PAGE))
    query = select(table).order_by(table.id.desc()).limit(limit)
    for column, value in (
        (table.release, release),
        (table.rollout, rollout),
        (table.stage, stage),
    ):
        if value:
            query = query.where(column == value)
    if device:
        query = query.where(table.device == device)
    if scope.requirements:
        query = query.where(or_(table.device.is_(None), chosen(scope, table.device)))
    if after:
        query = query.where(table.id < after)
    with services.database.read() as session:
        rows = list(session.scalars(query))
    return {
        "items": [_evidence(row) for row in rows],
        "next": str(rows[-1].id) if len(rows) == limit else None,
    }


def find(session: Session, model: str, version: str) -> tables.Release | None:
    """The row of a release, if it is registered."""
    query = select(tables.Release).where(
        tables.Release.model == model, tables.Release.version == version
    )
    return session.scalars(query).first()


def require(session: Session, model: str, version: str) -> tables.Release:
    """The row of a release.

    Raises:
        NotFound: it is not registered.
    """
    row = find(session, model, version)
    if row is None:
        raise NotFound(
            f"There is no release {model[:128]}:{version[:128]}.",
            fix="Push it first: edgeml releases push FOLDER",
        )
    return row


def document(row: tables.Release) -> Release:
    """The release that a row keeps."""
    return msgspec.json.decode(row.document, type=Release)


def _pushed_evidence(services: Services, release: Release) -> list[Evidence]:
    return [
        record
        for entry in services.registry.referrers(release.model, release.digest)
        if entry.artifact_type == oci.EVIDENCE_ARTIFACT
        for record in read_evidence(services.registry.blobs.read, entry.digest)
    ]


def _info(
    row: tables.Release, standing: Callable[[str, str], str], there: external.External
) -> ReleaseInfo:
    release = document(row)
    blobs = {file.digest: file.size for v in release.variants for file in v.files}
    return {
        "model": row.model,
        "version": row.version,
        "digest": row.digest,
        "bytes": sum(blobs.values()),
        "created_at": row.created_at,
        "created_by": row.created_by,
        "trust": standing(row.model, row.version),
        "registry": there.of(row.digest),
        "variants": [_variant(variant) for variant in release.variants],
    }


def _variant(variant: Variant) -> VariantInfo:
    files: list[dict[str, Any]] = msgspec.to_builtins(variant.files)
    return {
        "digest": variant.digest,
        "target": variant.target,
        "rank": variant.rank,
        "precision": variant.precision,
        "quantization": variant.quantization,
        "format": variant.format,
        "verification": variant.verification,
        "bytes": variant.total_bytes,
        "requires": msgspec.to_builtins(variant.requires),
        "files": files,
    }


def _evidence(row: tables.Evidence) -> EvidenceInfo:
    return {
        "id": row.id,
        "device": row.device or "",
        "model": row.model,
        "release": row.release,
        "variant": row.variant,
        "rollout": row.rollout,
        "stage": row.stage,
        "received_at": row.received_at,
        "evidence": msgspec.json.decode(row.document),
    }
