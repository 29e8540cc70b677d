"""Devices that switch together.

Revision: 0014; follows 0013.
"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.add_column("devices", sa.Column("features", sa.Text(), server_default="", nullable=False))
    for table in ("desired_models", "assignments"):
        op.add_column(table, sa.Column("until", sa.String(32), server_default="", nullable=False))
    for column in ("switch_at", "switch_by"):
        op.add_column(
            "desired_models", sa.Column(column, sa.Double(), server_default="0", nullable=False)
        )
    op.add_column("assignments", sa.Column("until_at", sa.Double(), nullable=True))
    op.add_column(
        "assignments", sa.Column("group_name", sa.String(128), server_default="", nullable=False)
    )


def downgrade() -> None:
    """Change them back."""
    op.drop_column("assignments", "group_name")
    op.drop_column("assignments", "until_at")
    for column in ("switch_by", "switch_at"):
        op.drop_column("desired_models", column)
    for table in ("assignments", "desired_models"):
        op.drop_column(table, "until")
    op.drop_column("devices", "features")
