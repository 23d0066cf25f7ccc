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
    # Of links that were ended before, the audit log knows every generation.
    op.execute(
        """
        UPDATE providers p SET last_generation = known.generation FROM (
            SELECT l.provider_id, max((l.detail ->> 'generation')::int) AS generation
            FROM provider_audit_logs l JOIN providers q ON q.id = l.provider_id
            WHERE q.status = 'unlinked' AND l.detail ->> 'generation' IS NOT NULL
            GROUP BY l.provider_id
        ) AS known WHERE p.id = known.provider_id
        """
    )


def downgrade() -> None:
    op.drop_column("providers", "last_generation")
