"""Configurations: layers, their revisions, and devices that have another than what holds."""

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fleet.db.tables.base import DIGEST, NAME, Table


class ConfigurationLayer(Table):
    """Settings of the fleet, of the devices that a selector chooses, or of one device.

    `number` is the revision that holds, 0 for none yet. What chooses its devices never changes.
    """

    __tablename__ = "configuration_layers"

    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    selector: Mapped[str]
    priority: Mapped[int]
    device: Mapped[str | None] = mapped_column(ForeignKey("devices.id"), index=True)
    number: Mapped[int]


class ConfigurationRevision(Table):
    """What a layer says, at one time; never changed. `settings` is JSON."""

    __tablename__ = "configuration_revisions"
    __table_args__ = (UniqueConstraint("layer", "number"),)

    digest: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    layer: Mapped[str] = mapped_column(ForeignKey("configuration_layers.name"))
    number: Mapped[int]
    settings: Mapped[str]
    created_at: Mapped[float]
    created_by: Mapped[str] = mapped_column(NAME)


class ConfigurationPin(Table):
    """A device that a rollout gave another revision of a layer than the one that holds."""

    __tablename__ = "configuration_pins"

    device: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    layer: Mapped[str] = mapped_column(
        ForeignKey("configuration_layers.name"), primary_key=True, index=True
    )
    revision: Mapped[str] = mapped_column(ForeignKey("configuration_revisions.digest"))
