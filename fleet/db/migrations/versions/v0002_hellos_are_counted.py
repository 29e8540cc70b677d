"""Hellos are counted.

Revision: 0002; follows 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.add_column(
        "devices",
        sa.Column("hello_counter", sa.BigInteger(), server_default="0", nullable=False),
    )
    op.create_index("ix_records_received_at", "records", ["received_at"])
    op.create_index("ix_evidence_received_at", "evidence", ["received_at"])


def downgrade() -> None:
    """Change the tables back."""
    op.drop_index("ix_evidence_received_at", table_name="evidence")
    op.drop_index("ix_records_received_at", table_name="records")
    op.drop_column("devices", "hello_counter")
