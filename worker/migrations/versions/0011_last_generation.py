"""The generation of the last token is kept when a link is ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("providers", sa.Column("last_generation", sa.Integer(), server_default="0", nullable=False))


def downgrade() -> None:
    op.drop_column("providers", "last_generation")
