"""Questions about the database itself."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session


def server_version(session: Session) -> str:
    """Postgres's version."""
    return str(session.scalar(text("SHOW server_version")))


def clock(session: Session) -> datetime:
    """What time it is there."""
    now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def role(session: Session) -> tuple[str, bool, bool]:
    """Who we are there: name, whether a superuser, and whether we may alter the audit log."""
    row = session.execute(
        text(
            """
            SELECT current_user, rolsuper,
                coalesce(
                    has_table_privilege(to_regclass('provider_audit_logs')::oid, 'UPDATE, DELETE, TRUNCATE'), false
                )
            FROM pg_roles WHERE rolname = current_user
            """
        )
    ).one()
    return row[0], row[1], row[2]
