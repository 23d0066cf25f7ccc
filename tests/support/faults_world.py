"""The whole system under test: servers that may be killed, workers, beat and the sandbox; and a story to disturb.

The story is always the same: logins are linked and synced (`begin`), then the books move and hours pass (`moves_on`),
so that everything falls due again. A fault strikes while that is worked off. Afterwards (`assert_nothing_was_lost`)
the books move once more, everything settles, and the tables must equal those of the same story without the fault.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider, make_user
from tests.support import databases
from tests.support.faults_brokers import servers_for
from tests.support.faults_casts import PLAYED, USUAL, Cast, logins_of
from tests.support.faults_pace import HTTP_TOTAL_SECONDS, PACE
from tests.support.faults_presented import Attempt, reckon
from tests.support.faults_relink import relink
from tests.support.faults_servers import Servers
from tests.support.faults_settling import Settling
from tests.support.faults_tables import Tables, differences, live, read_tables, without
from tests.support.sandbox import SandboxAdmin, SandboxProcess
from tests.support.waiting import PATIENCE_S, wait_for
from worker.services.encryption import EncryptionService
from worker.settings import QueueSettings, load
from worker.settings.celery import celery_settings

_BOOKS = {"transactions": 40, "history_days": 60}


class World(Settling):
    """See the module. Make it with `World.session`.

    Attributes:
        refreshed: the logins whose refreshes are disturbed: those of the cast's first integration.
        synced: the logins of all other integrations; their syncs are disturbed.
    """

    def __init__(self, servers: Servers, sandbox: SandboxAdmin, environment: dict[str, str], log: Path) -> None:
        super().__init__(servers, sandbox, environment, log)
        self.encryption = EncryptionService(os.environ["ENCRYPTION_KEYS"])
        self.times = []
        self.outlasted: list[Attempt] = []
        self._rounds = 0
        self._user: UUID
        self._spare_logins: dict[str, list[str]] = {}
        self._cast: Cast = {}
        self.refreshed: list[str] = []
        self.synced: list[str] = []
        self._references = log / "references"

    @classmethod
    @contextmanager
    def session(cls, home: Path, *, servers: Path | None = None, references: Path | None = None) -> Iterator[World]:
        """Everything up and linked to nothing, until the block ends.

        Args:
            home: of all that is written.
            servers: another place for the servers' data.
            references: a directory that processes share, for the tables of stories without a fault.
        """
        with ExitStack() as stack:
            running = servers_for(servers or home / "servers")
            stack.enter_context(running.session())
            databases.migrate(running.engine.url.render_as_string(hide_password=False))
            process = stack.enter_context(SandboxProcess("--logins", "0"))
            environment = {
                **running.addresses(),
                **PACE,
                "DASHTAM_HOME": str(home / "dashtam"),
                **process.variables(),
            }
            world = cls(running, stack.enter_context(process.admin()), environment, home)
            world._references = references or world._references
            stack.callback(world.close)
            yield world

    def begin(self, seed: int = 1, *, spare: int = 0, members: Cast = USUAL) -> None:
        """Everything as new: two workers and beat, linked logins, each synced once.

        Args:
            seed: of the sandbox.
            spare: so many logins of each provider that nobody has linked, for `relink`.
            members: whose logins.
        """
        self.servers.start()
        self.sandbox.reset(seed)
        self.servers.forget_messages()  # one that ends workers would end those that start now
        self.workers_of_the_session()
        self._forget_all()
        for key, count in members.items():
            self.sandbox.create_logins(key, count, **_BOOKS)
            if PLAYED[key].rotates:
                self.sandbox.set_policy(key, rotation="rotate", reuse="grace")
        # All at the beginning: a login that is made later moves everybody's books.
        self._spare_logins = {key: self.sandbox.create_logins(key, spare, **_BOOKS) if spare else [] for key in members}
        self._rounds = 0
        self._seed, self._spare_count, self._cast = seed, spare, members
        self.refreshed, *others = logins_of(members).values()
        self.synced = [login for logins in others for login in logins]
        self._day = datetime.now(UTC).date()
        self.link(*self.refreshed, *self.synced)
        self.settle(supervised=True)
        # A second message for the same login, sent while the first was slow, should not begin a run when hours pass.
        # One that a lost connection has orphaned comes back after the visibility timeout only, and is not waited for.
        with suppress(AssertionError):
            wait_for(self._nothing_is_queued, seconds=5)

    @property
    def members(self) -> Cast:
        """Whose logins the story is about."""
        return self._cast

    @property
    def refreshed_key(self) -> str:
        """The integration whose refreshes are disturbed."""
        return next(iter(self._cast))

    def link(self, *logins: str, synced: bool = True) -> None:
        """Links logins of the sandbox; their alias is the login's name. Unless `synced` they are refreshed alone."""
        self._since = self.now()
        self._due = set(logins) if synced else set()
        with Session(self.servers.engine, expire_on_commit=False) as session, session.begin():
            user = make_user(session)
            self._user = user.id
            for minted in self.sandbox.mint(*logins):
                provider = make_linked_provider(
                    session,
                    self.encryption,
                    user=user,
                    provider_key=minted.login.rpartition("-")[0],
                    alias=minted.login,
                    access_token=minted.access_token,
                    refresh_token=minted.refresh_token,
                    external_id=minted.item_id,
                    lifetime=timedelta(seconds=minted.expires_in) if minted.expires_in else None,
                    refresh_due_at=None
                    if minted.expires_in is None
                    else datetime.now(UTC) + timedelta(seconds=minted.expires_in * 0.7),
                    sync_due_at=datetime.now(UTC) if synced else None,
                )
                self.ids[minted.login] = provider.id
                self._linked[minted.login] = [(1, minted.login)]

    def relink(self, alias: str) -> None:
        """Another login of the same provider is linked under this alias, as its user would do it.

        From then on the alias stands for that login. Waits until the command has ended, while all else goes on. Nothing
        happens when there is no spare login left.
        """
        key = alias.rpartition("-")[0]
        if not self._spare_logins[key]:
            return
        login = self._spare_logins[key].pop(0)
        asked = PLAYED[key].asks
        answered = relink(
            self.sandbox, key, login, alias=alias, user=self._user, environment=self.environment, asked=asked
        )
        assert answered == "", f"{alias} could not be linked to {login}: {answered}"
        self._linked[alias].append((self.generation(alias), login))

    def moves_on(self) -> None:
        """The books move one step and hours pass: every token expires, refreshes and syncs fall due."""
        self.sandbox.advance(1)
        self._rounds += 1
        self.hours_pass(*self.ids)

    def hours_pass(self, *logins: str) -> None:
        """Hours pass for these logins: their tokens expire, refreshes and syncs fall due."""
        values = {"hours": timedelta(hours=5), "ids": [str(self.ids[login]) for login in logins]}
        self._since = self.now()
        self._due = set(logins)
        self.sandbox.expire_access_tokens(*(self.login_of(name) for name in logins))
        with self.servers.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE provider_tokens SET issued_at = issued_at - CAST(:hours AS interval)"
                    " WHERE lifetime_s IS NOT NULL AND provider_id = ANY (CAST(:ids AS uuid[]))"
                ),
                values,
            )
            connection.execute(
                text(
                    "UPDATE providers SET refresh_due_at = refresh_due_at - CAST(:hours AS interval),"
                    " access_expires_at = access_expires_at - CAST(:hours AS interval),"
                    " sync_due_at = sync_due_at - CAST(:hours AS interval) WHERE id = ANY (CAST(:ids AS uuid[]))"
                ),
                values,
            )

    def assert_nothing_was_lost(self, *, lost: tuple[str, ...] = (), retries: bool = True) -> None:
        """One more round without faults, then: no overlap, no reuse, the same tables as without any fault.

        Args:
            lost: logins whose provider allowed no recovery.
            retries: whether the fault may have left the outcome of a refresh unknown.
        """
        self.sandbox.clear_faults()
        self.settle(lost=lost, supervised=True)
        self.moves_on()
        self.settle(lost=lost, supervised=True)
        self.assert_log_is_clean(retries=retries)
        found = read_tables(self.servers.engine)
        wrong = [line for login in self.ids if login not in lost for line in self.differs_from_books(login)]
        assert not wrong, "differs from the books:\n" + "\n".join(wrong[:20])
        assert self._unaudited() == []
        relinked = self.relinked
        expected = self._reference()
        if datetime.now(UTC).date() != self._day:
            return  # The sandbox's books end today, and midnight came in between: those of another day say nothing.
        others = set(lost) | relinked
        wrong = differences(without(live(expected), others), without(live(found), others))
        if relinked:  # their new logins have securities that nobody had in the story without a fault
            wrong = [line for line in wrong if not line.startswith("securities: ")]
        assert not wrong, "differs from the story without a fault:\n" + "\n".join(wrong[:20])

    def assert_log_is_clean(self, *, retries: bool = True) -> None:
        """Promises 2 and 3, by the provider's own log and the attempts that we wrote down."""
        assert self.sandbox.overlapping_refreshes() == []
        rows = self.query(
            """
            SELECT p.alias, r.generation, r.status, r.reason, r.error, extract(epoch FROM r.started_at)::float8,
                extract(epoch FROM r.finished_at)::float8
            FROM token_refreshes r JOIN providers p ON p.id = r.provider_id ORDER BY r.started_at
            """
        )
        attempts = [Attempt(self.login_of(row[0], row[1]), *row[1:]) for row in rows]
        account = reckon(self.sandbox.refreshes(), attempts, retries=retries, deadline_s=0.9 * HTTP_TOTAL_SECONDS)
        self.outlasted += account.outlasted
        assert not account.wrong, "\n".join(account.wrong)

    def _unaudited(self) -> list[Any]:
        """Logins of which not every stored rotation has exactly one audit row."""
        rows = self.query(
            """
            SELECT p.alias, t.generation, count(l.id) FROM providers p JOIN provider_tokens t ON t.provider_id = p.id
            LEFT JOIN provider_audit_logs l ON l.provider_id = p.id AND l.action = 'token_refreshed'
            GROUP BY 1, 2
            """
        )
        return [row for row in rows if row[2] != row[1] - len(self._linked[row[0]])]

    def _reference(self) -> Tables:
        """The same story without a fault, told once a day by the first process that asks for it."""
        told = (self._seed, self._spare_count, self._rounds, datetime.now(UTC).date(), *self._cast.items())
        path = self._references / hashlib.sha256(repr(told).encode()).hexdigest()
        if not path.exists():
            rounds, ids, day, linked = self._rounds, dict(self.ids), self._day, dict(self._linked)
            self.begin(self._seed, spare=self._spare_count, members=self._cast)
            for _ in range(rounds):
                self.moves_on()
                self.settle()
            self._references.mkdir(exist_ok=True)
            written = path.with_name(f"{path.name}.{os.getpid()}")
            written.write_bytes(pickle.dumps(read_tables(self.servers.engine)))
            written.rename(path)
            self.ids, self._day, self._linked = ids, day, linked
        tables: Tables = pickle.loads(path.read_bytes())  # noqa: S301 - written by this session
        return tables

    def _forget_all(self) -> None:
        self.servers.forget_messages()
        wait_for(self._emptied, seconds=PATIENCE_S, what="the emptying of all tables")
        for path in self.spooled():
            path.unlink()
        self.ids, self._linked = {}, {}

    def _emptied(self) -> bool:
        """False when a worker that still has a task of the story before was in the way."""
        try:
            databases.empty(self.servers.engine)
        except OperationalError:
            return False
        return True

    def send(
        self, task: str, args: list[Any], kwargs: dict[str, Any] | None = None, *, queue: str = "", times: int = 1
    ) -> None:
        """Puts a task message on the broker, or many, each with an id of its own."""
        from worker.app import app

        addresses = {name.lower(): self.environment.get(name) for name in ("REDIS_URL", "BROKER_URL")}
        config = celery_settings(load(QueueSettings, **addresses))
        options = config["broker_transport_options"]
        with app.connection_for_write(config["broker_url"], transport_options=options) as connection:
            for _ in range(times):
                app.send_task(task, args, kwargs or {}, connection=connection, **({"queue": queue} if queue else {}))
