"""Postgres: its connections, transactions, clock, and the threads that wait for it.

Postgres's errors are turned into ours here, and every wait for Postgres has a time limit here.
"""

from __future__ import annotations

import math
import select as selecting
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from time import monotonic as _monotonic
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import psycopg
from psycopg import errors, waiting
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session

from worker.crud.unreachable import Silent, unavailable
from worker.errors import Unavailable
from worker.process.clocks import elapsed
from worker.process.loop import Threads
from worker.settings.database import DatabaseLimits

T = TypeVar("T")
P = ParamSpec("P")

OpenTransaction: TypeAlias = Session
"""The first argument of every function of `worker.crud`. Services only pass it on."""

_INTERVAL_S = 0.1
_KEEPALIVES = 3
_TRUSTED_SECONDS = 1.0
"""A connection that was in use so recently is not asked for a sign of life, unless it has received something."""
_CLOCK_SECONDS = 60.0
_CLOCK_DOUBT_SECONDS = 0.02
_CLOCK_READINGS = 5

_give_up_at: ContextVar[float | None] = ContextVar("give_up_at", default=None)


class Database:
    """Postgres for one process: each step is one transaction in a thread, with a deadline.

    Args:
        engine: gives the connections.
        threads: how many steps may run at the same time.
        step_seconds: how long one step may take, including the wait for a thread.
    """

    def __init__(self, engine: Engine, *, threads: int, step_seconds: float) -> None:
        self.engine = engine
        self._step_seconds = step_seconds
        self._threads = Threads(threads)
        self._clock: tuple[datetime, float] | None = None

    async def now(self) -> datetime:
        """The database's time, read once a minute. So a worker whose own clock is wrong still does what is due.

        Raises:
            Unavailable: Postgres is out of reach and its time was never read before.
        """
        read = self._clock
        if read is None or elapsed() - read[1] > _CLOCK_SECONDS:
            try:
                read = self._clock = await self.step(_read_clock)
            except Unavailable:
                if read is None:
                    raise
        return read[0] + timedelta(seconds=elapsed() - read[1])

    async def step(self, step: Callable[Concatenate[Session, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs one `crud` function in its own transaction, in a thread.

        Raises:
            Unavailable: Postgres is out of reach, or the step was not done within `DATABASE_STEP_SECONDS`, including
                the wait for a thread; the step may have been done nevertheless.
        """
        until = _monotonic() + self._step_seconds
        return await self._threads.run(until, self._in_transaction, until, step, args, kwargs)

    async def step_within(self, seconds: float, step: Callable[[Session], T]) -> T:
        """Like `step`, with a limit of `seconds`."""
        until = _monotonic() + seconds
        return await self._threads.run(until, self._in_transaction, until, step, (), {})

    def _in_transaction(self, until: float, step: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]) -> T:
        if _monotonic() > until:
            raise Unavailable("Postgres: all database threads of this process were busy")
        give_up_at(until)
        with transaction(self.engine) as session:
            return step(session, *args, **kwargs)

    @property
    def has_stuck_threads(self) -> bool:
        """Whether threads hang for good, so that this process must be replaced."""
        return self._threads.are_stuck

    def close(self) -> None:
        """Waits for the threads. The owner of the engine must close it."""
        self._threads.close()


def _read_clock(session: Session) -> tuple[datetime, float]:
    """The database's time, and this process's time just before it was read.

    So the computed time is never behind the database's: what is due there is due here. It would be ahead if this
    process was paused during the reading; then the time is read again.
    """
    session.connection()  # waiting for a connection must not be part of the reading
    for _ in range(_CLOCK_READINGS):
        asked_at = elapsed()
        there = now(session)
        if elapsed() - asked_at < _CLOCK_DOUBT_SECONDS:
            break
    return there, asked_at


def make_engine(
    database_url: str, *, connections: int, limits: DatabaseLimits | None = None, idle_seconds: float = 60
) -> Engine:
    """An engine whose pool holds at most `connections`; broken ones are replaced before use.

    A connection that was in use within the last second only counts as broken if the server has closed it since.

    Postgres ends a transaction that has no statement for `idle_seconds`: otherwise a process that is paused would keep
    its locks for ever. It ends statements after the times in `limits`; these also limit how long we wait for an answer
    before we close the connection.
    """
    limits = limits or DatabaseLimits()
    for_session = _session_settings(limits, idle_seconds)
    arguments: dict[str, Any] = {"application_name": "dashtam", **_network_limits(limits)}
    if limits.database_pooler:
        arguments["prepare_threshold"] = None
    else:
        # An address may have options of its own. Ours come last and so win: without these limits a wait has no end.
        arguments["options"] = " ".join([*_own_options(database_url), *(f"-c {k}={v}" for k, v in for_session.items())])
    engine = create_engine(
        database_url,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=limits.database_step_seconds,
        connect_args=arguments,
        # Values must not appear in error messages: they may be personal data.
        hide_parameters=True,
    )
    _hang_up_in_time(engine, limits)
    if limits.database_pooler:
        _set_in_each_transaction(engine, for_session)
    return engine


def _own_options(database_url: str) -> tuple[str, ...]:
    given = make_url(database_url).query.get("options", ())
    return (given,) if isinstance(given, str) else given


def _session_settings(limits: DatabaseLimits, idle_seconds: float) -> dict[str, str]:
    """Postgres's own limits, with the names of its settings."""
    return {
        "timezone": "UTC",
        "statement_timeout": _milliseconds(limits.database_statement_seconds),
        "lock_timeout": _milliseconds(limits.database_lock_seconds),
        "idle_in_transaction_session_timeout": _milliseconds(idle_seconds),
        # A backend that cannot send its answer keeps its locks, and no statement_timeout ends it.
        "tcp_user_timeout": _milliseconds(limits.database_step_seconds),
    }


def _network_limits(limits: DatabaseLimits) -> dict[str, Any]:
    """The limits of libpq. With them the kernel also notices a lost host on connections that are not in use."""
    return {
        "connect_timeout": math.ceil(limits.database_connect_seconds),
        "keepalives": 1,
        "keepalives_idle": math.ceil(limits.database_connect_seconds),
        "keepalives_interval": math.ceil(limits.database_connect_seconds),
        "keepalives_count": _KEEPALIVES,
        "tcp_user_timeout": int(limits.database_step_seconds * 1000),
    }


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _set_in_each_transaction(engine: Engine, for_session: dict[str, str]) -> None:
    """Sets the limits in each transaction: a pooler gives the server connection to others between transactions."""
    columns = ", ".join(
        f"set_config('{name}', '{value}', true)" for name, value in for_session.items() if name != "tcp_user_timeout"
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql(f"SELECT {columns}")


class _Connection(psycopg.Connection[Any]):
    """Waits for an answer only until the end of its step and then closes the connection, so that no thread hangs.

    Attributes:
        limits: the engine's limits.
        is_lent: it has passed the check of the pool and is in use.
        used_at: when it was last in use (`elapsed`); None before its first use.
        until: when to give up (`time.monotonic`); None: each wait has its own limit.
    """

    limits = DatabaseLimits()
    is_lent = False
    used_at: float | None = None
    until: float | None = None

    def wait(self, gen: Any, interval: float = _INTERVAL_S, timeout: float | None = None) -> Any:
        """Like psycopg's `wait`, with a time limit. The connection and its cursors do all their waiting here.

        Raises:
            Silent: no answer came in time; the connection is closed.
        """
        # Called six times in the smallest step, so it must be fast.
        until = self.until
        seconds = self._seconds_left() if until is None else until - _monotonic()
        if timeout is not None and timeout < seconds:
            seconds = timeout
        if seconds < 0:
            seconds = 0.0
        try:
            return waiting.wait(gen, self.pgconn.socket, interval=interval, timeout=seconds)
        except errors._WaitTimeout:  # noqa: SLF001 - a test would see it go
            self.close()
            raise Silent(f"no answer within {seconds:.3g} s") from None
        except psycopg.Error:
            raise
        except BaseException:
            # A time limit or a signal has interrupted an answer that nobody will read.
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise

    def is_trusted(self) -> bool:
        """Whether it may be used without asking the server: it is new, or was in use just now and is still open.

        A server that ends a connection sends its reason or the end of the stream, so there is something to read.
        """
        if self.used_at is None:
            return True
        if elapsed() - self.used_at > _TRUSTED_SECONDS or self.closed:
            return False
        readable = selecting.poll()
        readable.register(self.pgconn.socket, selecting.POLLIN)
        return not readable.poll(0)

    def _seconds_left(self) -> float:
        at = _give_up_at.get()
        seconds = self.limits.database_step_seconds if at is None else at - _monotonic()
        return seconds if self.is_lent else min(seconds, self.limits.database_connect_seconds)


def missing_limits(session: Session | Connection) -> list[str]:
    """Postgres's own limits that this connection lacks because something on the way has dropped them.

    Other values than ours are in order: an operator may have set them for our role.
    """
    names = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"]
    query = text("SELECT name FROM pg_settings WHERE name = ANY (:names) AND setting = '0'")
    return list(session.execute(query, {"names": names}).scalars())


def _hang_up_in_time(engine: Engine, limits: DatabaseLimits) -> None:
    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> _Connection:
        connection = _Connection.connect(*arguments, **named)
        connection.limits = limits
        return connection

    @event.listens_for(engine, "handle_error")
    def look_for_another(context: Any) -> None:
        # A server that takes no writes any more has become a standby. New connections find the primary.
        if isinstance(context.original_exception, errors.ReadOnlySqlTransaction):
            context.is_disconnect = True

    @event.listens_for(engine, "checkout")
    def lend(connection: _Connection, *_: Any) -> None:
        if not connection.is_trusted():
            _check(engine, connection)
        connection.is_lent = True
        connection.until = _give_up_at.get()

    @event.listens_for(engine, "checkin")
    def take_back(connection: _Connection | None, *_: Any) -> None:
        if connection is not None:
            connection.is_lent = False
            connection.until = None
            connection.used_at = elapsed()


def _check(engine: Engine, connection: _Connection) -> None:
    """Asks the server for a sign of life.

    Raises:
        InvalidatePoolError: the connection is broken, so SQLAlchemy replaces it and those that are as old.
    """
    dialect: Any = engine.dialect
    try:
        dialect.do_ping(connection)
    except psycopg.Error as error:
        if dialect.is_disconnect(error, connection, None):
            raise InvalidatePoolError from error
        raise


def give_up_at(moment: float) -> None:
    """Sets until when (`time.monotonic`) all Postgres calls of this context together may take."""
    _give_up_at.set(moment)


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One transaction: committed at the end, rolled back on any error.

    Raises:
        Unavailable: Postgres could not be reached, did not answer in time, or the connection was lost; it is unknown
            whether anything of this transaction was committed.
    """
    first: BaseException | None = None
    try:
        with Session(engine, expire_on_commit=False) as session, session.begin():
            try:
                yield session
            except BaseException as error:  # on a closed connection the rollback raises, too; the first error counts
                first = error
                raise
    except BaseException as error:
        cause = first or error
        told = unavailable(cause)
        if told is None:
            if cause is error:
                raise
            raise cause  # noqa: B904 - it came first
        raise told from cause


def now(session: Session) -> datetime:
    """The database's time."""
    found: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return found
