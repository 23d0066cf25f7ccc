"""Hosts tell each other which answers wait on their disks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("token_refreshes", sa.Column("spool_id", sa.Uuid(), nullable=True))
    op.create_table(
        "spools",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_spools")),
    )
    op.create_table(
        "spooled_answers",
        sa.Column("spool_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["spool_id"], ["spools.id"], name=op.f("fk_spooled_answers_spool_id_spools"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("spool_id", "name", name=op.f("pk_spooled_answers")),
    )
    op.create_index("ix_spooled_answers_provider", "spooled_answers", ["provider_id", "generation"])


def downgrade() -> None:
    op.drop_table("spooled_answers")
    op.drop_table("spools")
    op.drop_column("token_refreshes", "spool_id")
