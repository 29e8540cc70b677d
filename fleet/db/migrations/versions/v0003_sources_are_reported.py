"""Sources are reported.

Revision: 0003; follows 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.add_column("devices", sa.Column("sources", sa.Text(), server_default="{}", nullable=False))


def downgrade() -> None:
    """Change the tables back."""
    op.drop_column("devices", "sources")
