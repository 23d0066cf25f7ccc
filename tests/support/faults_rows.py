"""What the tables say while a fault strikes: attempts, states, what is due, and how it differs from the books."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.support.faults_presented import REFUSED
from tests.support.faults_processes import Processes
from tests.support.faults_servers import Servers
from tests.support.faults_tables import book_differences
from tests.support.sandbox import SandboxAdmin
from tests.support.waiting import PATIENCE_S, wait_for

RIGHTLY = "any login that two unknown outcomes have cost"
"""As a lost login: whichever may be lost."""


class Rows(Processes):
    """The tables, asked over the fault tests' own connection.

    Attributes:
        ids: each linked login's provider, by alias.
    """

    def __init__(self, servers: Servers, sandbox: SandboxAdmin, environment: dict[str, str], log: Path) -> None:
        super().__init__(environment, log)
        self.servers = servers
        self.sandbox = sandbox
        self.ids: dict[str, UUID] = {}
        self._since: datetime
        self._due: set[str] = set()
        self._linked: dict[str, list[tuple[int, str]]] = {}

    def now(self) -> datetime:
        """By the database's clock."""
        with self.servers.engine.connect() as connection:
            return connection.execute(text("SELECT clock_timestamp()")).scalar_one()

    def query(self, sql: str, **values: Any) -> list[Any]:
        """Rows of a query."""
        with self.servers.engine.connect() as connection:
            return list(connection.execute(text(sql), values))

    def attempts(self, login: str) -> list[tuple[str, str | None]]:
        """Status and error of a login's refresh attempts since time last passed, oldest first."""
        sql = (
            "SELECT status, error FROM token_refreshes WHERE provider_id = :id AND started_at >= :since"
            " ORDER BY started_at"
        )
        return [tuple(row) for row in self.query(sql, id=self.ids[login], since=self._since)]

    def outcomes(self, login: str) -> list[str]:
        """Of the attempts that may have used a token up: a busy machine may also have brought refusals."""
        return [status for status, _ in self.attempts(login) if status not in REFUSED]

    def status(self, login: str) -> tuple[str, str | None]:
        """Status of a login, and its reason."""
        return tuple(self.query("SELECT status, status_reason FROM providers WHERE id = :id", id=self.ids[login])[0])

    def generation(self, login: str) -> int:
        """Of a login's token."""
        return int(
            self.query("SELECT generation FROM provider_tokens WHERE provider_id = :id", id=self.ids[login])[0][0]
        )

    def versions(self) -> list[list[str]]:
        """Which transaction wrote each row of what was synced."""
        tables = ("accounts", "balances", "securities", "holdings", "holding_days", "transactions")
        return [sorted(str(tuple(row)) for row in self.query(f"SELECT ctid, xmin FROM {name}")) for name in tables]  # noqa: S608

    def login_of(self, alias: str, generation: int | None = None) -> str:
        """The provider's login that this alias stands for; or stood for, when its token was of this generation."""
        return next(
            login for since, login in reversed(self._linked[alias]) if generation is None or since <= generation
        )

    @property
    def relinked(self) -> set[str]:
        """Aliases that have come to stand for another login."""
        return {alias for alias, logins in self._linked.items() if len(logins) > 1}

    def differs_from_books(self, login: str) -> list[str]:
        """How the rows of a login differ from what its provider holds."""
        books = self.sandbox.books(self.login_of(login))
        return book_differences(self.servers.engine, books, alias=login, alone=login not in self.relinked)

    def rightly_lost(self) -> tuple[str, ...]:
        """Logins in `needs_reauth` after both presentations of a token had an unknown outcome; no other is forgiven."""
        rows = self.query(
            """
            SELECT p.alias FROM providers p JOIN provider_tokens t ON t.provider_id = p.id
            WHERE p.status = 'needs_reauth' AND p.status_reason = 'lost_rotation' AND (
                SELECT count(*) FROM token_refreshes r WHERE r.provider_id = p.id AND r.generation = t.generation
                    AND r.status = 'unknown') >= 2
            """
        )
        return tuple(row[0] for row in rows)

    def unsettled_now(self) -> list[str]:
        """What is due or under way just now, one line a login."""
        with suppress(OperationalError):
            return self._unsettled(())
        return ["Postgres is away"]

    def spooled(self) -> list[Path]:
        """Answers that wait on this machine's disk."""
        return list((Path(self.environment["DASHTAM_HOME"]) / "spool").glob("*.json"))

    def wait_until(self, sql: str, *, seconds: float = PATIENCE_S, **values: Any) -> None:
        """Waits until a query has a row."""
        wait_for(lambda: self.query(sql, **values), seconds=seconds, what=sql)

    def wait_for_the_answer(self, login: str) -> None:
        """Waits until the refresh under way has ended, however it did."""
        wait_for(
            lambda: all(status != "sent" for status, _ in self.attempts(login)),
            seconds=PATIENCE_S,
            what=f"the end of the refresh of {login}",
        )

    def _unsettled(self, lost: tuple[str, ...]) -> list[str]:
        rows = self.query(
            """
            SELECT p.alias, p.status, p.access_expires_at IS NULL OR p.access_expires_at > now() + interval '1 minute',
                t.lease_until IS NULL OR t.lease_until < clock_timestamp(),
                EXISTS (SELECT FROM token_refreshes r WHERE r.provider_id = p.id AND r.generation = t.generation
                    AND r.status IN ('sent', 'unknown')),
                r.status, r.error, r.started_at - :since, p.synced_at - :since
            FROM providers p JOIN provider_tokens t ON t.provider_id = p.id LEFT JOIN LATERAL (
                SELECT * FROM sync_runs r WHERE r.provider_id = p.id ORDER BY started_at DESC LIMIT 1) r ON true
            """,
            since=self._since,
        )
        forgiven = self.rightly_lost() if RIGHTLY in lost else lost
        missing = []
        for alias, status, fresh, free, open_attempt, run, error, started, synced in rows:
            if status == "needs_reauth" and alias in forgiven:
                continue
            if alias in lost or status != "active":
                missing.append(f"{alias} is {status}")
            elif not (fresh and free) or open_attempt:
                missing.append(f"{alias}: fresh={fresh} free={free} open attempt={open_attempt}")
            elif alias in self._due and not (run == "completed" and synced and min(started, synced) > timedelta()):
                missing.append(f"{alias}: run {run} {error}, begun {started}, last synced {synced} after it fell due")
        return missing
