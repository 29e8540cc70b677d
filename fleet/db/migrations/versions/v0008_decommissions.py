"""Devices are decommissioned.

Revision: 0008; follows 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "decommissions",
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("began_at", sa.Double(), nullable=False),
        sa.Column("began_by", sa.String(128), nullable=False),
        sa.Column("command", sa.String(64), nullable=False),
        sa.Column("command_status", sa.String(16), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name="fk_decommissions_device"),
        sa.PrimaryKeyConstraint("device", name="pk_decommissions"),
    )


def downgrade() -> None:
    """Change the tables back."""
    op.drop_table("decommissions")
