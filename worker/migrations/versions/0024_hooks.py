"""Hooks that were received, the pace at which they come, and logins whose state is to be asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    for column in (
        sa.Column("hooked_at", _MOMENT, nullable=True),
        sa.Column("hook_gap", sa.Integer(), nullable=True),
        sa.Column("hook_sync_at", _MOMENT, nullable=True),
        sa.Column("hook_url", sa.String(), nullable=True),
    ):
        op.add_column("providers", column)
    op.create_table(
        "hook_deliveries",
        sa.Column("provider_key", sa.String(), nullable=False),
        sa.Column("delivery_id", sa.String(), nullable=False),
        sa.Column("received_at", _MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=True),
        sa.Column("external_id", sa.String(), nullable=True),
        sa.Column("body_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("detail", postgresql.JSONB(), nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_id"],
            ["providers.id"],
            name=op.f("fk_hook_deliveries_provider_id_providers"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("provider_key", "delivery_id", name=op.f("pk_hook_deliveries")),
    )
    op.create_index(op.f("ix_hook_deliveries_received_at"), "hook_deliveries", ["received_at"])
    op.create_index(op.f("ix_hook_deliveries_provider_id"), "hook_deliveries", ["provider_id"])
    op.create_index(
        "ix_hook_deliveries_orphans",
        "hook_deliveries",
        ["provider_key", "external_id"],
        postgresql_where=sa.text("provider_id IS NULL AND external_id IS NOT NULL"),
    )
    op.create_table(
        "login_checks",
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("provider_key", sa.String(), nullable=False),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["provider_id"], ["providers.id"], name=op.f("fk_login_checks_provider_id_providers"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("provider_id", name=op.f("pk_login_checks")),
    )
    op.create_index(op.f("ix_login_checks_provider_key_due_at"), "login_checks", ["provider_key", "due_at"])


def downgrade() -> None:
    op.drop_table("login_checks")
    op.drop_table("hook_deliveries")
    for column in ("hook_url", "hook_sync_at", "hook_gap", "hooked_at"):
        op.drop_column("providers", column)
