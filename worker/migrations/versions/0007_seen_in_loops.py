"""What a full sync met in a pagination loop is told apart, so that a restarted loop can forget it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sync_seen", sa.Column("loop_id", sa.Uuid(), nullable=True))


def downgrade() -> None:
    op.drop_column("sync_seen", "loop_id")
