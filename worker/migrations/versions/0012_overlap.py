"""Workers of before 0009 name no provider for what a sync keeps for later, and go on beside newer ones."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_TABLES = ("sync_undo", "sync_seen")


def upgrade() -> None:
    for table in _TABLES:
        op.alter_column(table, "provider_id", nullable=True)


def downgrade() -> None:
    for table in _TABLES:
        op.execute(f"DELETE FROM {table} WHERE provider_id IS NULL")  # noqa: S608
        op.alter_column(table, "provider_id", nullable=False)
