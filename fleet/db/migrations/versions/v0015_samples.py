"""Captured frames that devices brought up.

Revision: 0015; follows 0014.
"""

import sqlalchemy as sa
from alembic import op

from fleet.db.tables.base import COUNTED

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "samples",
        sa.Column("id", COUNTED, nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("digest", sa.String(71), nullable=False),
        sa.Column("release", sa.String(71), nullable=False),
        sa.Column("version", sa.String(128), nullable=False),
        sa.Column("captured_at", sa.Double(), nullable=False),
        sa.Column("received_at", sa.Double(), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("media_type", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("line", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name="fk_samples_device"),
        sa.PrimaryKeyConstraint("id", name="pk_samples"),
        sa.UniqueConstraint("device", "model", "digest", name="uq_samples_device_model_digest"),
    )
    op.create_index("ix_samples_model_id", "samples", ["model", "id"])
    op.create_index("ix_samples_received_at", "samples", ["received_at"])


def downgrade() -> None:
    """Change them back."""
    op.drop_table("samples")
