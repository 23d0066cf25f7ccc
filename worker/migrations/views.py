"""Makes views of `dashtam_v1` in migrations after the one that makes the schema."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op

_SCHEMA = "dashtam_v1"
# Who may read the older views may read a new one, without `dashtam database roles` being run again.
_GRANT = """
    DO $$
    DECLARE reader regrole;
    BEGIN
        FOR reader IN
            SELECT DISTINCT a.grantee::regrole FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a
            WHERE c.oid = 'dashtam_v1.accounts'::regclass AND a.privilege_type = 'SELECT' AND a.grantee <> 0
        LOOP
            EXECUTE format('GRANT SELECT ON dashtam_v1.{view} TO %s', reader);
        END LOOP;
    END $$
"""


def create_view(view: str, told: str, rows: str, columns: Iterable[tuple[str, str, str]]) -> None:
    """Makes a view.

    Args:
        view: its name.
        told: its comment.
        rows: the rest of the query, from `FROM` on.
        columns: name, expression and comment of each column.
    """
    listed = ", ".join(f"{expression} AS {name}" for name, expression, _ in columns)
    op.execute(f"CREATE VIEW {_SCHEMA}.{view} AS SELECT {listed} {rows}")
    op.execute(sa.text(f"COMMENT ON VIEW {_SCHEMA}.{view} IS '{_quoted(told)}'"))
    for name, _, comment in columns:
        op.execute(sa.text(f"COMMENT ON COLUMN {_SCHEMA}.{view}.{name} IS '{_quoted(comment)}'"))
    op.execute(_GRANT.format(view=view))


def drop_view(view: str) -> None:
    """Takes a view away."""
    op.execute(f"DROP VIEW {_SCHEMA}.{view}")


def _quoted(comment: str) -> str:
    return comment.replace("'", "''").replace(":", "\\:")
