"""To which day a run was asked to go back that takes more time than it has."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sync_runs", sa.Column("since", sa.Date(), nullable=True))


def downgrade() -> None:
    op.drop_column("sync_runs", "since")
