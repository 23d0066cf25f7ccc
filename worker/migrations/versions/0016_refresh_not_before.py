"""A failed refresh says how long nothing is sent, also to those who come without looking at the due time."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("providers", sa.Column("refresh_not_before", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("providers", "refresh_not_before")
