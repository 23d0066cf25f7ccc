"""Notices to operators, and which logins a breaker has seen failing."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.alter_column("notices", "provider_id", existing_type=sa.Uuid(), nullable=True)
    op.add_column("notices", sa.Column("provider_key", sa.String(), nullable=True))
    op.create_check_constraint(
        op.f("ck_notices_one_subject"), "notices", "(provider_id IS NULL) <> (provider_key IS NULL)"
    )
    op.create_index(
        "uq_notices_operator",
        "notices",
        ["provider_key", "subject_key", "stage", "channel"],
        unique=True,
        postgresql_where="provider_id IS NULL",
    )
    op.create_index("ix_notices_created", "notices", ["created_at"])
    op.add_column(
        "integration_states",
        sa.Column("failing", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
    )


def downgrade() -> None:
    op.drop_column("integration_states", "failing")
    op.drop_index("ix_notices_created", table_name="notices")
    op.drop_index("uq_notices_operator", table_name="notices", postgresql_where="provider_id IS NULL")
    op.drop_constraint(op.f("ck_notices_one_subject"), "notices")
    op.execute("DELETE FROM notices WHERE provider_id IS NULL")
    op.drop_column("notices", "provider_key")
    op.alter_column("notices", "provider_id", existing_type=sa.Uuid(), nullable=False)
