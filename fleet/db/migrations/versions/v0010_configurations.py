"""Configurations by device, label and fleet; what a device was configured with is its own layer.

Revision: 0010; follows 0009.
"""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# What a configuration said before this revision where nobody had set it.
_DEFAULTS: dict[str, Any] = {
    "sources": [],
    "telemetry_every_s": 10.0,
    "site": {},
    "data_budget": {
        "month_bytes": None, "rollout_bytes": None, "month_begins": 1, "when_spent": "wait",
    },
    "mirrors": [],
    "max_download_bytes_s": 0,
}  # fmt: skip


def upgrade() -> None:
    """Change the tables."""
    layers = op.create_table(
        "configuration_layers",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("selector", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(64), nullable=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name="fk_configuration_layers_device"),
        sa.PrimaryKeyConstraint("name", name="pk_configuration_layers"),
    )
    op.create_index("ix_configuration_layers_device", "configuration_layers", ["device"])
    revisions = op.create_table(
        "configuration_revisions",
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("layer", sa.String(128), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.ForeignKeyConstraint(
            ["layer"], ["configuration_layers.name"], name="fk_configuration_revisions_layer"
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_configuration_revisions"),
        sa.UniqueConstraint("layer", "number", name="uq_configuration_revisions_layer_number"),
    )
    op.create_table(
        "configuration_pins",
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("layer", sa.String(128), nullable=False),
        sa.Column("revision", sa.String(71), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name="fk_configuration_pins_device"),
        sa.ForeignKeyConstraint(
            ["layer"], ["configuration_layers.name"], name="fk_configuration_pins_layer"
        ),
        sa.ForeignKeyConstraint(
            ["revision"], ["configuration_revisions.digest"],
            name="fk_configuration_pins_revision",
        ),
        sa.PrimaryKeyConstraint("device", "layer", name="pk_configuration_pins"),
    )  # fmt: skip
    op.create_index("ix_configuration_pins_layer", "configuration_pins", ["layer"])
    with op.batch_alter_table("rollouts") as batch:
        batch.alter_column("release", existing_type=sa.String(71), nullable=True)
        batch.add_column(sa.Column("revision", sa.String(71), nullable=True))
        batch.create_foreign_key(
            "fk_rollouts_revision", "configuration_revisions", ["revision"], ["digest"]
        )
        batch.create_check_constraint(
            "ck_rollouts_subject", "(release IS NULL) <> (revision IS NULL)"
        )
    _keep_what_devices_have(layers, revisions)


def downgrade() -> None:
    """Change them back; what devices are to have stays with them."""
    of_configurations = "SELECT id FROM rollouts WHERE revision IS NOT NULL"
    op.execute(f"DELETE FROM assignments WHERE rollout IN ({of_configurations})")  # noqa: S608
    op.execute("DELETE FROM rollouts WHERE revision IS NOT NULL")
    with op.batch_alter_table("rollouts") as batch:
        batch.drop_constraint("ck_rollouts_subject", type_="check")
        batch.drop_constraint("fk_rollouts_revision", type_="foreignkey")
        batch.drop_column("revision")
        batch.alter_column("release", existing_type=sa.String(71), nullable=False)
    op.drop_table("configuration_pins")
    op.drop_table("configuration_revisions")
    op.drop_table("configuration_layers")


def _keep_what_devices_have(layers: sa.Table, revisions: sa.Table) -> None:
    devices = sa.table("devices", sa.column("id"), sa.column("configuration"))
    connection = op.get_bind()
    made: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for device, configuration in connection.execute(sa.select(*devices.c)):
        settings = _set(json.loads(configuration), _DEFAULTS)
        if settings:
            made.append(_layer(device, json.dumps(settings)))
    for table, rows in ((layers, [m[0] for m in made]), (revisions, [m[1] for m in made])):
        if rows:
            connection.execute(table.insert(), rows)


def _set(found: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What differs from the defaults."""
    settings: dict[str, Any] = {}
    for key, default in defaults.items():
        value = found.get(key, default)
        if key == "data_budget":
            value = {name: v for name, v in value.items() if v != default.get(name)} or default
        if value != default:
            settings[key] = value
    return settings


def _layer(device: str, settings: str) -> tuple[dict[str, Any], dict[str, Any]]:
    name = f"device:{device}"
    digest = hashlib.sha256(f"{name}@1\n{settings}".encode()).hexdigest()
    layer = {
        "name": name, "kind": "device", "selector": "", "priority": 0, "device": device,
        "number": 1,
    }  # fmt: skip
    revision = {
        "digest": f"sha256:{digest}", "layer": name, "number": 1, "settings": settings,
        "created_at": 0.0, "created_by": "migration",
    }  # fmt: skip
    return layer, revision
