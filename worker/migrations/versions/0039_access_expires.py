"""The end of access tokens has its index in `due_times`, so that a stored refresh changes no index of `providers`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0039"
down_revision = "0038"
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


def upgrade() -> None:
    # The first tick that finds the table empty fills it again, with the new column; see 0036.
    op.execute("TRUNCATE due_times")
    op.add_column("due_times", sa.Column("access_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_due_times_access_expires",
        "due_times",
        ["access_expires_at"],
        postgresql_where=sa.text("access_expires_at IS NOT NULL"),
    )
    op.execute(_FUNCTION.format(**_NEW))
    op.execute(
        _MOVED.format(
            columns=", access_expires_at",
            condition=" OR OLD.access_expires_at IS DISTINCT FROM NEW.access_expires_at",
        )
    )
    op.drop_index("ix_providers_access_expires", table_name="providers")


def downgrade() -> None:
    active = sa.text("status = 'active'")
    op.create_index("ix_providers_access_expires", "providers", ["access_expires_at"], postgresql_where=active)
    op.execute(_MOVED.format(columns="", condition=""))
    op.execute(_FUNCTION.format(column="", value="", change=""))
    op.drop_index("ix_due_times_access_expires", table_name="due_times")
    op.drop_column("due_times", "access_expires_at")
