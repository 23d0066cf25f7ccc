"""The audit log's functions name the schema that they read, so that no temporary table can stand in for the log."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

FUNCTIONS = ("provider_audit_hash(provider_audit_logs)", "provider_audit_chain()", "provider_audit_refuse()")


def upgrade() -> None:
    # A schema of temporary tables that is not named is searched first.
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function} SET search_path = pg_catalog, public, pg_temp")


def downgrade() -> None:
    for function in FUNCTIONS:
        op.execute(f"ALTER FUNCTION {function} RESET search_path")
