"""What a sync keeps for later goes with its provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TABLES = ("sync_undo", "sync_seen")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("provider_id", sa.Uuid(), nullable=True))
        op.execute(
            f"UPDATE {table} kept SET provider_id = a.provider_id FROM transactions t JOIN accounts a"  # noqa: S608
            " ON a.id = t.account_id WHERE t.id = kept.transaction_id"
        )
        op.execute(f"DELETE FROM {table} WHERE provider_id IS NULL")  # noqa: S608 - nobody's any more
        op.alter_column(table, "provider_id", nullable=False)
        op.create_foreign_key(
            op.f(f"fk_{table}_provider_id_providers"), table, "providers", ["provider_id"], ["id"], ondelete="CASCADE"
        )


def downgrade() -> None:
    for table in _TABLES:
        op.drop_column(table, "provider_id")
