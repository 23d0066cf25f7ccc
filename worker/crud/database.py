"""Connections and transactions; where Postgres's own errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import psycopg
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from worker.errors import Unavailable


def make_engine(database_url: str, *, connections: int, idle_seconds: float = 60) -> Engine:
    """An engine whose pool holds at most `connections`; broken ones are replaced before use.

    Postgres ends a transaction in which nothing is asked for `idle_seconds`: a process that stands still would keep its
    locks for ever, and nobody could take over.
    """
    options = f"-c timezone=UTC -c idle_in_transaction_session_timeout={round(idle_seconds * 1000)}"
    return create_engine(
        database_url,
        pool_size=connections,
        max_overflow=0,
        pool_pre_ping=True,
        pool_timeout=30,
        connect_args={"connect_timeout": 5, "application_name": "dashtam", "options": options},
    )


_GONE = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.IdleInTransactionSessionTimeout)


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One transaction: committed at the end, rolled back on any error.

    Raises:
        Unavailable: Postgres could not be reached or went away; nothing of this transaction is known to be kept.
    """
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            yield session
    except _GONE as error:  # out of COPY and the like
        raise Unavailable(f"Postgres: {type(error).__name__}") from error
    except (OperationalError, InterfaceError) as error:
        raise Unavailable(f"Postgres: {type(error.orig).__name__}") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("Postgres closed the connection") from error
        raise


def now(session: Session) -> datetime:
    """The time by the database's clock."""
    found: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return found
