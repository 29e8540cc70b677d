"""What the policies of rollouts need.

Revision: 0011; follows 0010.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.add_column("devices", sa.Column("utc_offset_s", sa.Integer(), nullable=True))
    op.add_column("rollouts", sa.Column("started_at", sa.Double(), nullable=True))
    op.execute("UPDATE rollouts SET started_at = created_at")
    op.add_column(
        "assignments", sa.Column("tries", sa.Integer(), server_default="1", nullable=False)
    )
    op.add_column(
        "assignments", sa.Column("again", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    for table in ("assignments", "reported_models"):
        op.add_column(table, sa.Column("cause", sa.String(32), server_default="", nullable=False))
    op.create_table(
        "rollout_members",
        sa.Column("rollout", sa.String(64), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"], name="fk_rollout_members_rollout"),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name="fk_rollout_members_device"),
        sa.PrimaryKeyConstraint("rollout", "device", name="pk_rollout_members"),
    )
    op.create_index("ix_rollout_members_device", "rollout_members", ["device"])
    op.create_table(
        "release_blocks",
        sa.Column("release", sa.String(71), nullable=False),
        sa.Column("hardware_class", sa.String(128), nullable=False),
        sa.Column("rollout", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("blocked_at", sa.Double(), nullable=False),
        sa.Column("blocked_by", sa.String(128), nullable=False),
        sa.ForeignKeyConstraint(["release"], ["releases.digest"], name="fk_release_blocks_release"),
        sa.PrimaryKeyConstraint("release", "hardware_class", name="pk_release_blocks"),
    )


def downgrade() -> None:
    """Change them back."""
    op.drop_table("release_blocks")
    op.drop_index("ix_rollout_members_device", "rollout_members")
    op.drop_table("rollout_members")
    for table in ("reported_models", "assignments"):
        op.drop_column(table, "cause")
    op.drop_column("assignments", "again")
    op.drop_column("assignments", "tries")
    op.drop_column("rollouts", "started_at")
    op.drop_column("devices", "utc_offset_s")
