"""Accounts that are known under more than one key: under which ones, and which keys their rows have there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "account_sources",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("account_id", sa.Uuid(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        _to("account_sources", "account_id", "accounts"),
        _to("account_sources", "provider_id", "providers"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_account_sources")),
    )
    op.create_index("ix_account_sources_account_id", "account_sources", ["account_id"])
    live = sa.text("ended_at IS NULL")
    op.create_index(
        "uq_account_sources_live", "account_sources", ["provider_id", "key"], unique=True, postgresql_where=live
    )
    op.create_table(
        "transaction_keys",
        sa.Column("source_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("transaction_id", sa.Uuid(), nullable=False),
        _to("transaction_keys", "source_id", "account_sources"),
        _to("transaction_keys", "transaction_id", "transactions"),
        sa.PrimaryKeyConstraint("source_id", "key", name=op.f("pk_transaction_keys")),
    )
    op.create_index("ix_transaction_keys_transaction_id", "transaction_keys", ["transaction_id"])


def downgrade() -> None:
    op.drop_table("transaction_keys")
    op.drop_table("account_sources")


def _to(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{target}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete="CASCADE")
