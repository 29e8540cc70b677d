"""What devices spend on the network is kept, and rollouts have a data budget.

Revision: 0007; follows 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "ledger_entries",
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("ledger", sa.String(64), nullable=False),
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("rollout", sa.String(64), nullable=False),
        sa.Column("cause", sa.String(16), nullable=False),
        sa.Column("sent", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name="fk_ledger_entries_device"),
        sa.PrimaryKeyConstraint(
            "device", "ledger", "month", "rollout", "cause", name="pk_ledger_entries"
        ),
    )
    op.create_index("ix_ledger_entries_rollout", "ledger_entries", ["rollout"])
    op.add_column(
        "desired_models",
        sa.Column("data_budget_bytes", sa.BigInteger(), server_default="0", nullable=False),
    )


def downgrade() -> None:
    """Change the tables back."""
    op.drop_column("desired_models", "data_budget_bytes")
    op.drop_table("ledger_entries")
