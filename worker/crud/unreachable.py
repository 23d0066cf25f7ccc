"""Turns the Postgres errors which mean that it is out of reach into `Unavailable`, with an explanation."""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg
from psycopg import errors
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from worker.errors import Unavailable


class Silent(psycopg.OperationalError):
    """Postgres did not answer in time, so the connection was closed; what was asked may have been done."""


_GONE = (psycopg.OperationalError, psycopg.InterfaceError, errors.IdleInTransactionSessionTimeout)
_OLD_SCHEMA = (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction)
_ALWAYS_REFUSED = (*_OLD_SCHEMA, errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction)
_REFUSED = re.compile(r'connection to server (?:at|on socket) "([^"]*)"(?: \([^)]*\))?(?:, port (\d+))? failed: (.*)')
_NO_SUCH_NAME = re.compile(r"failed to resolve host '([^']*)'")


def unavailable(error: BaseException) -> Unavailable | None:
    """The error to raise when Postgres is out of reach; None for any other error."""
    if isinstance(error, NoConnectionFree):
        return Unavailable("Postgres: all connections of this process are in use")
    if isinstance(error, DBAPIError):
        return _of_the_driver(error)
    if isinstance(error, Silent):
        return Unavailable(f"Postgres did not answer: {error}", server="postgres", silent=True)
    if isinstance(error, errors.ConnectionTimeout):
        told = "Postgres did not answer: no connection within DATABASE_CONNECT_SECONDS"
        return Unavailable(told, server="postgres", silent=True)
    if isinstance(error, _ALWAYS_REFUSED):
        return _refused(error)
    if isinstance(error, errors.LockNotAvailable):
        return Unavailable("Postgres: another transaction kept a lock for longer than DATABASE_LOCK_SECONDS")
    if isinstance(error, errors.QueryCanceled):
        return Unavailable("Postgres ended a statement, most likely after DATABASE_STATEMENT_SECONDS")
    if isinstance(error, _GONE):  # psycopg's own error, for example from COPY
        return _not_connected(str(error)) or Unavailable(f"Postgres: {type(error).__name__}", server="postgres")
    return None


def _refused(error: psycopg.Error) -> Unavailable:
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return Unavailable("Postgres takes no writes: the connection leads to a standby", server="standby")
    if isinstance(error, errors.InsufficientPrivilege):
        return Unavailable("the role in DATABASE_URL lacks rights that this version needs", server="roles")
    return Unavailable("the database does not have the tables of this version", server="schema")


def _of_the_driver(error: DBAPIError) -> Unavailable | None:
    if isinstance(error.orig, _ALWAYS_REFUSED):
        return _refused(error.orig)
    if not isinstance(error, OperationalError | InterfaceError):
        return (
            Unavailable("Postgres closed the connection", server="postgres") if error.connection_invalidated else None
        )
    if error.orig is None:
        return Unavailable(f"Postgres: {type(error).__name__}", server="postgres")
    return unavailable(error.orig)


def _not_connected(text: str) -> Unavailable | None:
    """Why no connection was made, according to libpq's message; None when there was a connection."""
    if found := _NO_SUCH_NAME.search(text):
        return Unavailable(f"Postgres: the name {found[1]} of its host cannot be resolved", server="postgres")
    tried = list(dict.fromkeys(_attempt(found) for found in _REFUSED.finditer(text)))
    if not tried:
        return None
    if len(tried) == 1:
        return tried[0].told()
    said = ", ".join(f"{attempt.place}: {attempt.reason}" for attempt in tried)
    if any(attempt.is_read_only for attempt in tried):
        return Unavailable(f"Postgres: no server of the address takes writes ({said})", server="standby")
    return Unavailable(f"Postgres: no server of the address takes connections ({said})", server="postgres")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One host that libpq tried, and why it failed."""

    place: str
    reason: str

    @property
    def is_read_only(self) -> bool:
        return "session is read-only" in self.reason or "in hot standby" in self.reason

    def told(self) -> Unavailable:
        if self.reason.startswith(("Connection refused", "No such file")):
            return Unavailable(f"Postgres does not run at {self.place}", server="postgres")
        if "timeout" in self.reason.lower() or "timed out" in self.reason.lower():
            return Unavailable(f"Postgres did not answer at {self.place}", server="postgres", silent=True)
        if self.is_read_only:
            return Unavailable(f"Postgres at {self.place} takes no writes: it is a standby", server="standby")
        if "unsupported startup parameter" in self.reason:
            return Unavailable(f"the pooler at {self.place} refuses our options: {self.reason}", server="pooler")
        return Unavailable(f"Postgres at {self.place} refuses the connection: {self.reason}", server="postgres")


def _attempt(found: re.Match[str]) -> _Attempt:
    place = f"{found[1]}:{found[2]}" if found[2] else found[1]
    return _Attempt(place, found[3].strip().removeprefix("FATAL:").strip())
