"""Revoked certificates, boots of devices, tokens for several devices.

Revision: 0006; follows 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.add_column(
        "enrollments", sa.Column("uses", sa.Integer(), server_default="1", nullable=False)
    )
    op.create_table(
        "revoked_certificates",
        sa.Column("serial", sa.String(64), nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("issuer", sa.String(128), nullable=False),
        sa.Column("revoked_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("serial", name=op.f("pk_revoked_certificates")),
    )
    op.create_table(
        "device_boots",
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("boot_id", sa.String(128), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("returns", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["device"], ["devices.id"], name=op.f("fk_device_boots_device")),
        sa.PrimaryKeyConstraint("device", "boot_id", name=op.f("pk_device_boots")),
    )


def downgrade() -> None:
    """Change the tables back."""
    op.drop_table("device_boots")
    op.drop_table("revoked_certificates")
    op.drop_column("enrollments", "uses")
