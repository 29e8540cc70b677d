"""Users, their tokens and sessions, rollouts' scopes; the audit log takes no change.

Revision: 0009; follows 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_SQLITE = """CREATE TRIGGER audit_no_{verb} BEFORE {verb} ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END"""
_FUNCTION = """CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$"""
_POSTGRESQL = """CREATE TRIGGER audit_no_{verb} BEFORE {verb} ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only()"""


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "users",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("must_change", sa.Boolean(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("disabled_at", sa.Double(), nullable=True),
        sa.Column("last_login_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_users"),
    )
    op.create_table(
        "credentials",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("owner", sa.String(64), nullable=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", sa.String(128), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["owner"], ["users.name"], name="fk_credentials_owner"),
        sa.PrimaryKeyConstraint("hash", name="pk_credentials"),
        sa.UniqueConstraint("id", name="uq_credentials_id"),
    )
    op.create_index("ix_credentials_owner", "credentials", ["owner"])
    op.create_index("ix_credentials_expires_at", "credentials", ["expires_at"])
    op.create_table(
        "rollout_scopes",
        sa.Column("rollout", sa.String(64), nullable=False),
        sa.Column("requirement", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["rollout"], ["rollouts.id"], name="fk_rollout_scopes_rollout"),
        sa.PrimaryKeyConstraint("rollout", "requirement", name="pk_rollout_scopes"),
    )
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(_SQLITE.format(verb=verb))
    else:
        op.execute(_FUNCTION)
        for verb in ("UPDATE", "DELETE", "TRUNCATE"):
            op.execute(_POSTGRESQL.format(verb=verb))


def downgrade() -> None:
    """Change the tables back."""
    on = "" if op.get_bind().dialect.name == "sqlite" else " ON audit"
    for verb in ("UPDATE", "DELETE"):
        op.execute(f"DROP TRIGGER audit_no_{verb}{on}")
    if on:
        op.execute("DROP TRIGGER audit_no_TRUNCATE ON audit")
        op.execute("DROP FUNCTION audit_append_only()")
    for table in ("rollout_scopes", "credentials", "users"):
        op.drop_table(table)
