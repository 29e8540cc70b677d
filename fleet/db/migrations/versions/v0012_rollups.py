"""Roll-ups of telemetry.

Revision: 0012; follows 0011.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "rollups",
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("begins_at", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("release", sa.String(71), nullable=False),
        sa.Column("hardware_class", sa.String(128), nullable=False),
        sa.Column("labels", sa.String(512), nullable=False),
        *_summed(),
        sa.PrimaryKeyConstraint(
            "step", "begins_at", "model", "release", "hardware_class", "labels", name="pk_rollups"
        ),
    )
    op.create_table(
        "device_rollups",
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("begins_at", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("release", sa.String(71), nullable=False),
        *_summed(),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name="fk_device_rollups_device"),
        sa.PrimaryKeyConstraint(
            "device", "begins_at", "model", "release", name="pk_device_rollups"
        ),
    )
    op.create_index(
        "ix_device_rollups_model_release_begins_at",
        "device_rollups",
        ["model", "release", "begins_at"],
    )
    op.create_index("ix_device_rollups_begins_at", "device_rollups", ["begins_at"])
    op.create_index("ix_ledger_entries_at", "ledger_entries", ["at"])


def downgrade() -> None:
    """Change them back."""
    op.drop_index("ix_ledger_entries_at", "ledger_entries")
    op.drop_table("device_rollups")
    op.drop_table("rollups")


def _summed() -> list[sa.Column[Any]]:
    counts = ("accepted", "replaced", "inferred", "empty", "errors", "confident", "rss_bytes")
    return [
        sa.Column("windows", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counts),
        sa.Column("energy_j", sa.Double(), nullable=False),
        sa.Column("energy_inferred", sa.BigInteger(), nullable=False),
        sa.Column("latency", sa.LargeBinary(), nullable=False),
        sa.Column("metrics", sa.LargeBinary(), nullable=False),
    ]
