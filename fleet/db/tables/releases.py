"""Releases."""

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet.db.tables.base import DIGEST, NAME, Table


class Release(Table):
    """A registered release; `document` is the JSON of `cloud_sync.release.Release`."""

    __tablename__ = "releases"
    __table_args__ = (UniqueConstraint("model", "version"),)

    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    model: Mapped[str] = mapped_column(NAME)
    version: Mapped[str] = mapped_column(NAME)
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(NAME)
    document: Mapped[str]
