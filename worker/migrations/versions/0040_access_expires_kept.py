"""The end of access tokens has its index in `due_times`, so that a stored refresh changes no index of `providers`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None

_FUNCTION = """
    CREATE OR REPLACE FUNCTION keep_due_time() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        due timestamptz := CASE TG_ARGV[0] WHEN 'sync' THEN NEW.sync_due_at ELSE NEW.refresh_due_at END;
    BEGIN
        IF due IS NULL OR NEW.status <> 'active' THEN
            DELETE FROM public.due_times WHERE provider_id = NEW.id AND kind = TG_ARGV[0];
        ELSE
            INSERT INTO public.due_times (provider_id, kind, provider_key, due_at{column})
            VALUES (NEW.id, TG_ARGV[0], NEW.provider_key, due{value})
            ON CONFLICT (provider_id, kind)
                DO UPDATE SET provider_key = excluded.provider_key, due_at = excluded.due_at{change};
        END IF;
        RETURN NULL;
    END $$
"""
_NEW = {
    "column": ", access_expires_at",
    "value": ", CASE TG_ARGV[0] WHEN 'refresh' THEN NEW.access_expires_at END",
    "change": ", access_expires_at = excluded.access_expires_at",
}
_MOVED = """
    CREATE OR REPLACE TRIGGER refresh_due_moved AFTER UPDATE OF refresh_due_at, status, provider_key{columns}
    ON providers FOR EACH ROW WHEN (OLD.refresh_due_at IS DISTINCT FROM NEW.refresh_due_at
        OR OLD.status <> NEW.status OR OLD.provider_key <> NEW.provider_key{condition})
    EXECUTE FUNCTION keep_due_time('refresh')
"""
# A row that another transaction holds gets its value from that one: the trigger writes it with every other change. So
# does the next claim of a login whose row a worker of the release before fills after a crash of Postgres.
_FILL = """
    DO $$
    DECLARE
        place uuid := '00000000-0000-0000-0000-000000000000';
        last uuid;
    BEGIN
        LOOP
            SELECT id INTO last FROM (SELECT id FROM providers WHERE id > place ORDER BY id LIMIT 5000) AS following
            ORDER BY id DESC LIMIT 1;
            EXIT WHEN last IS NULL;
            UPDATE due_times SET access_expires_at = known.access_expires_at FROM (
                SELECT p.id, p.access_expires_at FROM due_times d JOIN providers p ON p.id = d.provider_id
                WHERE d.kind = 'refresh' AND p.id > place AND p.id <= last AND d.access_expires_at IS NULL
                    AND p.access_expires_at IS NOT NULL
                FOR UPDATE OF d SKIP LOCKED
            ) AS known
            WHERE kind = 'refresh' AND provider_id = known.id;
            COMMIT;
            place := last;
        END LOOP;
    END $$
"""


def upgrade() -> None:
    # First what takes the strongest lock on `providers`: it could not be had later while others wait for a weaker one.
    op.drop_index("ix_providers_access_expires", table_name="providers", if_exists=True)
    op.execute(_FUNCTION.format(**_NEW))
    op.execute(
        _MOVED.format(
            columns=", access_expires_at",
            condition=" OR OLD.access_expires_at IS DISTINCT FROM NEW.access_expires_at",
        )
    )
    with op.get_context().autocommit_block():
        op.execute(_FILL)


def downgrade() -> None:
    active = sa.text("status = 'active'")
    op.create_index("ix_providers_access_expires", "providers", ["access_expires_at"], postgresql_where=active)
    op.execute(_MOVED.format(columns="", condition=""))
    op.execute(_FUNCTION.format(column="", value="", change=""))
