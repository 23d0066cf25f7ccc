"""Queries about the database server itself: version, clock, role, replication."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.orm import Session


def server_version(session: Session) -> str:
    """Postgres's version."""
    return str(session.scalar(text("SHOW server_version")))


def takes_writes(session: Session) -> bool:
    """Whether Postgres takes writes, as a primary does."""
    return bool(session.scalar(text("SELECT current_setting('transaction_read_only') = 'off'")))


def clock(session: Session) -> datetime:
    """The server's time."""
    now: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def role(session: Session) -> tuple[str, bool, bool]:
    """Our role: its name, whether it is a superuser, and whether it may change the audit log."""
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


@dataclass(frozen=True, slots=True)
class Replication:
    """How safe the last commits are if a standby has to take over.

    Attributes:
        standbys: how many are connected, or have a replication slot.
        synchronous: whether a commit waits until a standby has received it.
    """

    standbys: int
    synchronous: bool


def replication(session: Session) -> Replication:
    """Reads only what every role may see: settings and the number of standbys, not the state of each."""
    row = session.execute(
        text(
            """
            SELECT greatest(
                (SELECT count(*) FROM pg_stat_replication),
                (SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical')
            ), current_setting('synchronous_standby_names') <> ''
                AND current_setting('synchronous_commit') IN ('on', 'remote_apply')
            """
        )
    ).one()
    return Replication(row[0], row[1])
