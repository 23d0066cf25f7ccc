"""Postgres is out of reach: each way is told apart, with the place."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import OperationalError, ProgrammingError

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


@pytest.mark.parametrize("error", [errors.UndefinedTable("no"), errors.UndefinedColumn("no")])
def test_tables_of_another_version_are_told(error: Exception) -> None:
    told = unavailable(ProgrammingError("SELECT 1", {}, error))

    assert told is not None
    assert told.server == "schema"


def test_what_is_our_own_fault_is_no_trouble_of_postgres() -> None:
    assert unavailable(ProgrammingError("SELEC 1", {}, errors.SyntaxError("no"))) is None
    assert unavailable(ValueError("no")) is None
