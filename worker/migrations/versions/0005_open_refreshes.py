"""Refreshes without a known outcome are found by provider and generation."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_token_refreshes_sent", table_name="token_refreshes", postgresql_where="status = 'sent'")
    op.create_index(
        "ix_token_refreshes_open",
        "token_refreshes",
        ["provider_id", "generation"],
        postgresql_where="status IN ('sent', 'unknown')",
    )


def downgrade() -> None:
    op.drop_index(
        "ix_token_refreshes_open", table_name="token_refreshes", postgresql_where="status IN ('sent', 'unknown')"
    )
    op.create_index(
        "ix_token_refreshes_sent", "token_refreshes", ["provider_id"], unique=False, postgresql_where="status = 'sent'"
    )
