"""Runs that may repeat the last one are written once, at their end, and name the run that they repeat."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)

# A standby has no such table, and the views must also work there. Whoever may read the views may read these rows.
_HERE = """
    CREATE FUNCTION unsettled_runs_here() RETURNS SETOF unsettled_runs
    LANGUAGE plpgsql STABLE ROWS 50 SECURITY DEFINER SET search_path = pg_catalog AS $$
    BEGIN
        IF NOT pg_is_in_recovery() THEN
            RETURN QUERY SELECT * FROM public.unsettled_runs;
        END IF;
    END $$
"""
_VIEW = """
    CREATE OR REPLACE VIEW dashtam_v1.sync_runs AS
    SELECT r.id AS run_id, r.provider_id AS login_id, p.user_id AS user_id, r.status AS status, r.trigger AS trigger,
        r.started_at AS started_at, r.finished_at AS finished_at, r.added AS added, r.changed AS changed,
        r.unchanged AS unchanged, r.removed AS removed, r.quarantined AS quarantined
    FROM sync_runs AS r JOIN providers AS p ON p.id = r.provider_id
"""
_UNSETTLED = """
    UNION ALL
    SELECT u.id, u.provider_id, p.user_id, 'running', 'schedule', u.started_at, NULL, 0, 0, 0, 0, 0
    FROM unsettled_runs_here() AS u JOIN providers AS p ON p.id = u.provider_id
"""
_WAITING = """
    CREATE OR REPLACE VIEW work_waiting AS
"""
_OF_QUEUE = """
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
_NOT_RUNNING = " AND NOT EXISTS (SELECT FROM sync_runs AS r WHERE r.provider_id = p.id AND r.status = 'running')"
_NOT_UNSETTLED = " AND p.id <> ALL (ARRAY(SELECT u.provider_id FROM unsettled_runs_here() AS u))"


def _waiting(others: str) -> str:
    of_queues = (_OF_QUEUE.format(kind="refresh", others=""), _OF_QUEUE.format(kind="sync", others=others))
    return _WAITING + " UNION ALL ".join(of_queues)


def upgrade() -> None:
    # Nothing of it is written to WAL. Such a run has stored nothing, so nothing is lost if Postgres empties the table
    # after a crash.
    op.create_table(
        "unsettled_runs",
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Uuid(), nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("heartbeat_at", _TIME, nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("provider_id", name=op.f("pk_unsettled_runs")),
        prefixes=["UNLOGGED"],
    )
    op.add_column("sync_runs", sa.Column("repeats", sa.Uuid(), nullable=True))
    for column in ("owner", "heartbeat_at"):
        op.alter_column("sync_runs", column, nullable=True)
    op.execute(_HERE)
    op.execute(_VIEW + _UNSETTLED)
    op.execute(_waiting(_NOT_RUNNING + _NOT_UNSETTLED))


def downgrade() -> None:
    op.execute(_waiting(_NOT_RUNNING))
    op.execute(_VIEW)
    op.execute(
        "UPDATE sync_runs AS r SET answers = heard.answers, counts = heard.counts, cursor_before = heard.cursor_before"
        " FROM sync_runs AS heard WHERE heard.id = r.repeats"
    )
    op.execute(
        "UPDATE sync_runs SET owner = coalesce(owner, id), heartbeat_at = coalesce(heartbeat_at, finished_at)"
        " WHERE owner IS NULL OR heartbeat_at IS NULL"
    )
    for column in ("owner", "heartbeat_at"):
        op.alter_column("sync_runs", column, nullable=False)
    op.drop_column("sync_runs", "repeats")
    op.execute("DROP FUNCTION unsettled_runs_here()")
    op.drop_table("unsettled_runs")
