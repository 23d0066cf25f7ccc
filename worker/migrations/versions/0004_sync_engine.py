"""What the sync engine keeps besides rows: undo of open loops, rows seen by a full sync, anchors of the books check."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sync_undo",
        sa.Column("loop_id", sa.Uuid(), nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        sa.Column("before", postgresql.JSONB(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("loop_id", "transaction_id", name=op.f("pk_sync_undo")),
    )
    op.create_table(
        "sync_seen",
        sa.Column("generation", sa.Uuid(), nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
    )
    op.create_index(op.f("ix_sync_seen_generation"), "sync_seen", ["generation"])
    op.add_column("sync_runs", sa.Column("generation", sa.Uuid(), nullable=True))
    op.add_column("securities", sa.Column("source", sa.String(), nullable=False, server_default=""))
    op.alter_column("securities", "source", server_default=None)
    op.add_column("accounts", sa.Column("opening", sa.Numeric(), nullable=True))
    op.add_column("accounts", sa.Column("opening_from", sa.Date(), nullable=True))
    op.create_check_constraint(
        op.f("ck_accounts_opening_finite"), "accounts", "opening > '-Infinity' AND opening < 'Infinity'"
    )
    op.create_index(
        "ix_transactions_pending_key",
        "transactions",
        ["account_id", "pending_key"],
        postgresql_where=sa.text("pending_key IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_transactions_pending_key", table_name="transactions")
    op.drop_constraint(op.f("ck_accounts_opening_finite"), "accounts", type_="check")
    op.drop_column("accounts", "opening_from")
    op.drop_column("accounts", "opening")
    op.drop_column("securities", "source")
    op.drop_column("sync_runs", "generation")
    op.drop_index(op.f("ix_sync_seen_generation"), table_name="sync_seen")
    op.drop_table("sync_seen")
    op.drop_table("sync_undo")
