"""What waits for a worker: a claim keeps since when its login was due, and a view counts what is claimed or overdue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

_KINDS = ("refresh", "sync")

# A claim moves the due time ahead, so that due rows alone show nothing while messages wait. As long as nothing else has
# moved the due time since, the login waits for a worker or is with one. Running syncs do not wait.
_WAITING = """
    SELECT '{kind}' AS queue,
        count(*) FILTER (WHERE {kind}_due_at <= now()) AS due,
        count(*) FILTER (WHERE {kind}_due_at > now()) AS claimed,
        coalesce(
            greatest(
                extract(
                    epoch FROM now() - min(
                        CASE WHEN {kind}_due_at = {kind}_claimed_until THEN {kind}_wanted_at ELSE {kind}_due_at END
                    )
                ),
                0
            ),
            0
        )::float8 AS oldest_seconds
    FROM providers AS p
    WHERE status = 'active' AND ({kind}_due_at <= now() OR {kind}_due_at = {kind}_claimed_until){others}
"""
_NOT_RUNNING = """
        AND NOT EXISTS (SELECT FROM sync_runs AS r WHERE r.provider_id = p.id AND r.status = 'running')
"""


def upgrade() -> None:
    for kind in _KINDS:
        op.add_column("providers", sa.Column(f"{kind}_claimed_until", sa.DateTime(timezone=True), nullable=True))
        op.add_column("providers", sa.Column(f"{kind}_wanted_at", sa.DateTime(timezone=True), nullable=True))
    refresh, sync = _WAITING.format(kind="refresh", others=""), _WAITING.format(kind="sync", others=_NOT_RUNNING)
    op.execute(f"CREATE VIEW work_waiting AS {refresh} UNION ALL {sync}")
    op.execute(
        "COMMENT ON VIEW work_waiting IS 'For each queue: logins that are due, logins that are claimed and wait for a"
        " worker or are with one, and for how many seconds the first of them has been due.'"
    )


def downgrade() -> None:
    op.execute("DROP VIEW work_waiting")
    for kind in _KINDS:
        op.drop_column("providers", f"{kind}_wanted_at")
        op.drop_column("providers", f"{kind}_claimed_until")
