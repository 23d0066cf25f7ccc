"""Which logins an integration has refused without saying whether the login or the application is the reason."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "integration_states",
        sa.Column("refused", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False),
    )
    op.add_column("integration_states", sa.Column("refused_since", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("integration_states", "refused_since")
    op.drop_column("integration_states", "refused")
