"""Postgres is out of reach: each way is told apart, with the place."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import InternalError, OperationalError, ProgrammingError

from worker.crud.unreachable import Silent, unavailable


def _wrapped(error: Exception) -> OperationalError:
    return OperationalError("SELECT 1", {}, error)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'connection failed: connection to server at "127.0.0.1", port 5433 failed: Connection refused\n\tIs it up?',
            "Postgres does not run at 127.0.0.1:5433",
        ),
        (
            'connection failed: connection to server at "db.example.org" (10.0.0.1), port 5432 failed: '
            'FATAL:  password authentication failed for user "ada"',
            'Postgres at db.example.org:5432 refuses the connection: password authentication failed for user "ada"',
        ),
        (
            'connection to server on socket "/run/.s.PGSQL.5432" failed: No such file or directory',
            "Postgres does not run at /run/.s.PGSQL.5432",
        ),
        (
            "failed to resolve host 'db.nowhere': [Errno -2] Name or service not known",
            "Postgres: the name db.nowhere of its host cannot be resolved",
        ),
        ("the connection is lost", "Postgres: OperationalError"),
    ],
)
def test_why_no_connection_was_made_is_told_with_the_place(text: str, told: str) -> None:
    error = unavailable(_wrapped(psycopg.OperationalError(text)))

    assert error is not None
    assert (str(error), error.server, error.silent) == (told, "postgres", False)


_ATTEMPT = (
    "- host: 'h', port: 1, hostaddr: '127.0.0.1': connection failed: connection to server at \"{}\", port {} failed: {}"
)


@pytest.mark.parametrize(
    ("attempts", "told", "server"),
    [
        (
            [("h1", 5432, "Connection refused\n\tIs it up?"), ("h2", 5433, "session is read-only")],
            "Postgres: no server of the address takes writes"
            " (h1:5432: Connection refused, h2:5433: session is read-only)",
            "standby",
        ),
        (
            [("h1", 5432, "Connection refused"), ("h2", 5433, 'FATAL:  database "d" does not exist')],
            "Postgres: no server of the address takes connections"
            ' (h1:5432: Connection refused, h2:5433: database "d" does not exist)',
            "postgres",
        ),
        ([("h1", 5432, "session is read-only")], "Postgres at h1:5432 takes no writes: it is a standby", "standby"),
        (
            [("h1", 6432, "FATAL:  unsupported startup parameter: options")],
            "the pooler at h1:6432 refuses our options: unsupported startup parameter: options",
            "pooler",
        ),
    ],
)
def test_each_server_of_an_address_is_told(attempts: list[tuple[str, int, str]], told: str, server: str) -> None:
    text = "Multiple connection attempts failed. All failures were:\n"
    text += "\n".join(_ATTEMPT.format(*attempt) for attempt in attempts)

    error = unavailable(_wrapped(psycopg.OperationalError(text)))

    assert error is not None
    assert (str(error), error.server) == (told, server)


def test_connection_that_became_read_only_leads_to_a_standby() -> None:
    refused = errors.ReadOnlySqlTransaction("cannot execute UPDATE in a read-only transaction")

    for error in (refused, InternalError("UPDATE", {}, refused)):
        told = unavailable(error)
        assert told is not None
        assert (str(told), told.server) == ("Postgres takes no writes: the connection leads to a standby", "standby")


@pytest.mark.parametrize("error", [Silent("no answer within 5 s"), errors.ConnectionTimeout("connection timeout")])
def test_silence_is_told_apart(error: Exception) -> None:
    told = unavailable(_wrapped(error))

    assert told is not None
    assert told.silent
    assert str(told).startswith("Postgres did not answer")


def test_a_lock_of_others_says_nothing_against_the_server() -> None:
    told = unavailable(_wrapped(errors.LockNotAvailable("lock timeout")))

    assert told is not None
    assert told.server == ""


def test_what_is_our_own_fault_is_no_trouble_of_postgres() -> None:
    assert unavailable(ProgrammingError("SELEC 1", {}, errors.SyntaxError("no"))) is None
    assert unavailable(ValueError("no")) is None


@pytest.mark.parametrize(
    ("error", "server"),
    [
        (errors.UndefinedTable(), "schema"),
        (errors.UndefinedColumn(), "schema"),
        (errors.UndefinedFunction(), "schema"),
        (errors.InsufficientPrivilege(), "roles"),
    ],
)
def test_old_schema_and_missing_rights_are_told_whether_sqlalchemy_or_psycopg_was_asked(
    error: psycopg.Error, server: str
) -> None:
    for raised in (error, ProgrammingError("SELECT 1", {}, error)):
        told = unavailable(raised)

        assert told is not None
        assert told.server == server
