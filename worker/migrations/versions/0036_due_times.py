"""Due times are found in a table of their own, so that a claim and the end of a sync change no index of `providers`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None

_FUNCTION = """
    CREATE FUNCTION keep_due_time() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        due timestamptz := CASE TG_ARGV[0] WHEN 'sync' THEN NEW.sync_due_at ELSE NEW.refresh_due_at END;
    BEGIN
        IF due IS NULL OR NEW.status <> 'active' THEN
            DELETE FROM public.due_times WHERE provider_id = NEW.id AND kind = TG_ARGV[0];
        ELSE
            INSERT INTO public.due_times (provider_id, kind, provider_key, due_at)
            VALUES (NEW.id, TG_ARGV[0], NEW.provider_key, due)
            ON CONFLICT (provider_id, kind)
                DO UPDATE SET provider_key = excluded.provider_key, due_at = excluded.due_at;
        END IF;
        RETURN NULL;
    END $$
"""
_FORGET = """
    CREATE FUNCTION forget_due_times() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM public.due_times WHERE provider_id = OLD.id;
        RETURN NULL;
    END $$
"""
_TRIGGERS = """
    CREATE TRIGGER {kind}_due_added AFTER INSERT ON providers FOR EACH ROW
        WHEN (NEW.{kind}_due_at IS NOT NULL AND NEW.status = 'active') EXECUTE FUNCTION keep_due_time('{kind}');
    CREATE TRIGGER {kind}_due_moved AFTER UPDATE OF {kind}_due_at, status, provider_key ON providers FOR EACH ROW
        WHEN (OLD.{kind}_due_at IS DISTINCT FROM NEW.{kind}_due_at OR OLD.status <> NEW.status
            OR OLD.provider_key <> NEW.provider_key)
        EXECUTE FUNCTION keep_due_time('{kind}')
"""
_KINDS = ("refresh", "sync")


def upgrade() -> None:
    # Nothing of it is written to WAL: the times are in `providers`. It is filled by the first tick that finds it empty,
    # after this migration, a crash of Postgres or a change of the primary.
    op.create_table(
        "due_times",
        sa.Column("provider_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("provider_key", sa.String(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("provider_id", "kind", name=op.f("pk_due_times")),
        prefixes=["UNLOGGED"],
        postgresql_with={"fillfactor": 70},
    )
    op.create_index("ix_due_times_due", "due_times", ["kind", "provider_key", "due_at"])
    op.execute(_FUNCTION)
    op.execute(_FORGET)
    for kind in _KINDS:
        op.execute(_TRIGGERS.format(kind=kind))
        op.drop_index(f"ix_providers_{kind}_due", table_name="providers")
    op.execute(
        "CREATE TRIGGER due_times_forgotten AFTER DELETE ON providers FOR EACH ROW EXECUTE FUNCTION forget_due_times()"
    )


def downgrade() -> None:
    op.execute("DROP TRIGGER due_times_forgotten ON providers")
    for kind in _KINDS:
        op.execute(f"DROP TRIGGER {kind}_due_added ON providers")
        op.execute(f"DROP TRIGGER {kind}_due_moved ON providers")
        due = sa.text(f"status = 'active' AND {kind}_due_at IS NOT NULL")
        op.create_index(
            f"ix_providers_{kind}_due", "providers", ["provider_key", f"{kind}_due_at"], postgresql_where=due
        )
    op.execute("DROP FUNCTION keep_due_time()")
    op.execute("DROP FUNCTION forget_due_times()")
    op.drop_table("due_times")
