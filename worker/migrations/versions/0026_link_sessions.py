"""Link sessions: one person links one login on pages of ours, in one browser."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

_STATUS = "status IN ('open', 'linked', 'cancelled')"


def upgrade() -> None:
    op.create_table(
        "link_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("browser_hash", sa.LargeBinary(), nullable=True),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("provider_key", sa.String(), nullable=True),
        sa.Column("alias", sa.String(), nullable=True),
        sa.Column("provider_id", sa.Uuid(), nullable=True),
        sa.Column("return_url", sa.String(), nullable=True),
        sa.Column("asked_by", sa.String(), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("linked_id", sa.Uuid(), nullable=True),
        sa.CheckConstraint(_STATUS, name=op.f("ck_link_sessions_status")),
        _belongs("user_id", "users", "CASCADE"),
        _belongs("provider_id", "providers", "SET NULL"),
        _belongs("key_id", "api_keys", "CASCADE"),
        _belongs("linked_id", "providers", "SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_link_sessions")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_link_sessions_token_hash")),
    )
    for column in ("user_id", "provider_id", "key_id", "expires_at", "linked_id"):
        op.create_index(op.f(f"ix_link_sessions_{column}"), "link_sessions", [column])
    op.add_column("link_states", sa.Column("session_id", sa.Uuid(), nullable=True))


def _belongs(column: str, table: str, ondelete: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_link_sessions_{column}_{table}")
    return sa.ForeignKeyConstraint([column], [f"{table}.id"], name=name, ondelete=ondelete)


def downgrade() -> None:
    op.drop_column("link_states", "session_id")
    op.drop_table("link_sessions")
