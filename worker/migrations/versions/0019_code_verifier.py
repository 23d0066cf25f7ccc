"""A consent that is under way keeps the encrypted secret that its exchange has to show (RFC 7636)."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("link_states", sa.Column("code_verifier", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("link_states", "code_verifier")
