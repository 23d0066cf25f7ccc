"""Links that were ended before get the generation of their last token, from the audit log.

Apart from the migration that adds the column: that one locks `providers` until it ends, and the audit log is long.
"""

from __future__ import annotations

from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        UPDATE providers p SET last_generation = greatest(p.last_generation, known.generation) FROM (
            SELECT l.provider_id, max((l.detail ->> 'generation')::int) AS generation
            FROM provider_audit_logs l JOIN providers q ON q.id = l.provider_id
            WHERE q.status = 'unlinked' AND l.detail ->> 'generation' IS NOT NULL
            GROUP BY l.provider_id
        ) AS known WHERE p.id = known.provider_id
        """
    )


def downgrade() -> None:
    """The column goes with its own migration."""
