"""How often each provider is synced, where that is not what the setting says; which full syncs were asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("providers", sa.Column("sync_interval", sa.Integer(), nullable=True))
    op.create_check_constraint(op.f("ck_providers_sync_interval"), "providers", "sync_interval > 0")
    op.add_column("sync_runs", sa.Column("renews", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    op.drop_column("sync_runs", "renews")
    op.drop_constraint(op.f("ck_providers_sync_interval"), "providers", type_="check")
    op.drop_column("providers", "sync_interval")
