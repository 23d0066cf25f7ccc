"""By what an account is recognised when its login is linked again: its institution and its stable ids."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("institution", sa.String(), nullable=True))
    op.add_column("accounts", sa.Column("stable_keys", sa.ARRAY(sa.Text()), nullable=True))


def downgrade() -> None:
    op.drop_column("accounts", "stable_keys")
    op.drop_column("accounts", "institution")
