"""The whole system under test: servers that may be killed, workers, beat and the sandbox; and a story to disturb.

The story is always the same: logins are linked and synced (`begin`), then the books move and hours pass (`moves_on`),
so that everything falls due again. A fault strikes while that is worked off. Afterwards (`assert_nothing_was_lost`)
the books move once more, everything settles, and the tables must equal those of the same story without the fault.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
from tests.support.environment import ROOT
from tests.support.faults_presented import REFUSED, Attempt, reckon
from tests.support.faults_relink import relink
from tests.support.faults_servers import Servers
from tests.support.faults_tables import Tables, book_differences, differences, live, read_tables, without
from tests.support.nodes import WorkerNode
from tests.support.processes import LocalProcess
from tests.support.sandbox import SandboxAdmin, SandboxProcess
from tests.support.waiting import wait_for
from worker.devstack.tether import Tether
from worker.services.encryption import EncryptionService

QUEUES = "refresh,sync,upkeep"
SECONDS_PER_TICK = 0.3
VISIBILITY_TIMEOUT = 12
LEASE_SECONDS = 5.0
HTTP_TOTAL_SECONDS = 4.0

# As in production, only faster: every fault takes seconds.
PACE = {
    "TICK_SCALE": str(SECONDS_PER_TICK / 15),
    "CLAIM_SECONDS": "3",
    "HTTP_TOTAL_SECONDS": str(HTTP_TOTAL_SECONDS),
    "LEASE_SECONDS": str(LEASE_SECONDS),
    "RUN_DEAD_SECONDS": "5",
    "SYNC_MIN_INTERVAL": "0",
    "SYNC_BACKFILL_DAYS": "80",
    "VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT),
    "TASK_TIME_LIMIT": "11",
    "TASK_SOFT_TIME_LIMIT": "10",
    "SOFT_SHUTDOWN_SECONDS": "1",
    "RETRY_AFTER_MAX": "3",
    "BREAKER_SECONDS": "1",
    "BREAKER_MAX_SECONDS": "2",
    "DATABASE_THREADS": "3",
    "DATABASE_CONNECT_SECONDS": "2",
    "DATABASE_LOCK_SECONDS": "3",
    "DATABASE_STATEMENT_SECONDS": "3.5",
    "DATABASE_STEP_SECONDS": "4.5",
    "QUOTA_SCALE": "1000",
}
PATIENCE_S = 120.0
"""How long anything is waited for that must happen; how soon it does is reported, not judged on a busy machine."""
_HOPE_S = 20.0
"""An answer in the journal may revive a login that was given up; nothing else does."""
_BACKOFF_FROM_S = 11
"""A due time farther away than any claim is a wait before a retry."""

SCHWAB, PLAID = ("schwab-1", "schwab-2", "schwab-3"), ("plaid-1", "plaid-2")
LOGINS = SCHWAB + PLAID
_BOOKS = {"transactions": 40, "history_days": 60}

RIGHTLY = "any login that two unknown outcomes have cost"
"""As a lost login: whichever may be lost."""

_references: dict[tuple[object, ...], Tables] = {}


class World:
    """See the module. Make it with `World.session`."""

    def __init__(self, servers: Servers, sandbox: SandboxAdmin, environment: dict[str, str], log: Path) -> None:
        self.servers = servers
        self.sandbox = sandbox
        self.environment = environment
        self.encryption = EncryptionService(os.environ["ENCRYPTION_KEYS"])
        self.ids: dict[str, UUID] = {}
        self.workers: list[WorkerNode] = []
        self.beat: LocalProcess
        self._log = log
        self._tether = Tether(log / "tether.log", grace_s=1)
        self._spare: list[WorkerNode | LocalProcess] = []
        self._since: datetime
        self._due: set[str] = set()
        self.times: list[tuple[str, float]] = []
        self.outlasted: list[Attempt] = []
        self._rounds = 0
        self._numbers = 0
        self._user: UUID
        self._linked: dict[str, list[tuple[int, str]]] = {}
        self._spare_logins: dict[str, list[str]] = {}

    @classmethod
    @contextmanager
    def session(cls, home: Path, *, servers: Path | None = None) -> Iterator[World]:
        """Everything up and linked to nothing, until the block ends; `servers` is another place for their data."""
        with ExitStack() as stack:
            running = Servers(servers or home / "servers")
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
            stack.callback(world.close)
            yield world

    def close(self) -> None:
        for process in [*self._spare, *self.workers, *([self.beat] if hasattr(self, "beat") else [])]:
            _stop(process)
        self._tether.release()

    # Processes

    def start_worker(
        self, *, wait: bool = True, program: tuple[str, ...] = ("celery",), tree: Path = ROOT, **env: str
    ) -> WorkerNode:
        """One more worker, for this test alone: `start_worker(FAILPOINTS="after_answer=kill")`."""
        worker = self._worker(f"own{self._number()}", env, tree)
        if program != ("celery",):
            worker.process._argv[2:3] = program
        self._spare.append(worker)
        worker.start()
        if wait:
            worker.ready()
        return worker

    def start_beat(self, *argv: str, **env: str) -> LocalProcess:
        """One more beat, for this test alone."""
        beat = self._beat(f"beat{self._number()}", env, argv)
        self._spare.append(beat)
        beat.start()
        return beat

    def workers_of_the_session(self, *, spare: bool = True) -> None:
        """Two workers and beat, whatever was left of them; `spare` ends all others."""
        if spare:
            for process in self._spare:
                _stop(process)
            self._spare.clear()
        if not self.workers:
            self.workers = [self._worker(name, {}) for name in ("one", "two")]
            self.beat = self._beat("beat", {}, ())
        down = [worker for worker in self.workers if not worker.process.running]
        for worker in down:
            worker.start()
        if not self.beat.running:
            self.beat.start()
        for worker in down:
            worker.ready()

    def _restart_the_dead(self) -> None:
        for process in [*(worker.process for worker in self.workers), self.beat]:
            if not process.running:
                process.start()

    def only_worker(self, *, program: tuple[str, ...] = ("celery",), **env: str) -> WorkerNode:
        """Ends all workers but a new one with these variables."""
        worker = self.start_worker(wait=False, program=program, **env)
        for other in self.workers:
            kill(other)
        worker.ready()
        return worker

    def start_process(self, argv: list[str], **env: str) -> LocalProcess:
        """A program on these servers, for this test alone."""
        name = f"own{self._number()}"
        log = self._log / f"{name}.log"
        process = LocalProcess(name, argv, log=log, env=self.environment | env, tether=self._tether)
        self._spare.append(process)
        process.start()
        return process

    def _worker(self, name: str, env: dict[str, str], tree: Path = ROOT) -> WorkerNode:
        return WorkerNode(
            name,
            queues=QUEUES,
            log=self._log / f"worker-{name}.log",
            env=self.environment | env,
            tether=self._tether,
            processes=2,
            options=("--without-heartbeat",),
            tree=tree,
        )

    def _beat(self, name: str, env: dict[str, str], argv: tuple[str, ...]) -> LocalProcess:
        command = argv or (sys.executable, "-m", "celery", "-A", "worker.app", "beat", "--loglevel", "INFO")
        log = self._log / f"{name}.log"
        return LocalProcess(name, [*command, "--pidfile="], log=log, env=self.environment | env, tether=self._tether)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def log_files(self) -> list[Path]:
        """What all processes have written."""
        return list(self._log.glob("*.log"))

    def logs(self) -> str:
        """The ends of all logs, for the report of a failed test."""
        processes = [*self._spare, *self.workers, *([self.beat] if hasattr(self, "beat") else [])]
        return "\n".join(f"--- {process.name}\n{_told(process.logs())}" for process in processes)

    # The story

    def begin(self, seed: int = 1, *, spare: int = 0, **policy: Any) -> None:
        """Everything as new: two workers and beat, linked logins, each synced once.

        Args:
            seed: of the sandbox.
            spare: so many logins of each provider that nobody has linked, for `relink`.
            policy: Schwab's.
        """
        self.servers.start()
        self.servers.redis.config_set("maxmemory", "0")
        self.sandbox.reset(seed)
        self._forget_messages()  # one that ends workers would end those that start now
        self.workers_of_the_session()
        self._forget_all()
        self.sandbox.create_logins("schwab", len(SCHWAB), **_BOOKS)
        self.sandbox.create_logins("plaid", len(PLAID), **_BOOKS)
        # All at the beginning: a login that is made later moves everybody's books.
        self._spare_logins = {
            key: self.sandbox.create_logins(key, spare, **_BOOKS) if spare else [] for key in ("schwab", "plaid")
        }
        self.sandbox.set_policy("schwab", **({"rotation": "rotate", "reuse": "grace"} | policy))
        self._rounds = 0
        self._seed, self._spare_count = seed, spare
        self._day = datetime.now(UTC).date()
        self.link(*LOGINS)
        self.settle(supervised=True)
        # A second message for the same login, sent while the first was slow, should not begin a run when hours pass.
        # One that a lost connection has orphaned comes back after the visibility timeout only, and is not waited for.
        with suppress(AssertionError):
            wait_for(self._nothing_is_queued, seconds=5)

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
                    provider_key=minted.login.partition("-")[0],
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
        key = alias.partition("-")[0]
        if not self._spare_logins[key]:
            return
        login = self._spare_logins[key].pop(0)
        answered = relink(self.sandbox, key, login, alias=alias, user=self._user, environment=self.environment)
        assert answered == "", f"{alias} could not be linked to {login}: {answered}"
        self._linked[alias].append((self.generation(alias), login))

    def login_of(self, alias: str, generation: int | None = None) -> str:
        """The provider's login that this alias stands for; or stood for, when its token was of this generation."""
        return next(
            login for since, login in reversed(self._linked[alias]) if generation is None or since <= generation
        )

    @property
    def relinked(self) -> set[str]:
        """Aliases that have come to stand for another login."""
        return {alias for alias, logins in self._linked.items() if len(logins) > 1}

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
        self.sandbox.expire_access_tokens(*(self.login_of(name) for name in logins if name.startswith("schwab")))
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

    def settle(
        self, *, seconds: float = PATIENCE_S, hurry: bool = True, lost: tuple[str, ...] = (), supervised: bool = False
    ) -> float:
        """Waits until all that fell due is done and nothing is under way.

        Args:
            seconds: at most.
            hurry: lets the waits before retries pass at once.
            lost: logins that must end in `needs_reauth`.
            supervised: workers and beat are started again when they end.

        Returns:
            How long it took.
        """
        begun = time.monotonic()
        hurried = [0.0]
        given_up: list[float] = []

        def is_settled() -> bool:
            if supervised:
                self._restart_the_dead()
            with suppress(OperationalError):
                if hurry and time.monotonic() - hurried[0] > 0.5:
                    self._hurry()
                    hurried[0] = time.monotonic()
                self.unsettled = self._unsettled(lost)
                if not self.unsettled:
                    return True
                if all(line.endswith(" is needs_reauth") for line in self.unsettled):
                    given_up.append(time.monotonic())
                else:
                    given_up.clear()
                assert not given_up or given_up[-1] - given_up[0] < _HOPE_S
            return False

        self.unsettled: list[str] = []
        try:
            wait_for(is_settled, seconds=seconds, every=0.1)
        except AssertionError:
            waited = time.monotonic() - begun
            raise AssertionError(f"not settled after {waited:.0f} s: {self.unsettled}") from None
        return time.monotonic() - begun

    def recovers(self, what: str, *, lost: tuple[str, ...] = (), hurry: bool = False) -> float:
        """Starts the processes that are down and waits until all that is due is done.

        `hurry` lets waits before retries pass at once.

        Returns:
            Seconds from now until then, which is also reported; promise 1 allows the visibility timeout, a tick and a
            minute.
        """
        begun = time.monotonic()
        self.servers.start()
        self.workers_of_the_session(spare=False)
        self.settle(hurry=hurry, lost=lost, supervised=True)
        seconds = time.monotonic() - begun
        self.times.append((what, seconds))
        return seconds

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
        """The same story without a fault, told once per session and day."""
        key = (self._seed, self._spare_count, self._rounds, datetime.now(UTC).date())
        if key not in _references:
            rounds, ids, day, linked = self._rounds, dict(self.ids), self._day, dict(self._linked)
            self.begin(self._seed, spare=self._spare_count)
            for _ in range(rounds):
                self.moves_on()
                self.settle()
            _references[key] = read_tables(self.servers.engine)
            self.ids, self._day, self._linked = ids, day, linked
        return _references[key]

    def _forget_messages(self) -> None:
        keys = [key for key in self.servers.redis.scan_iter(count=1000) if not key.startswith("_kombu.binding.")]
        if keys:
            self.servers.redis.delete(*keys)

    def _forget_all(self) -> None:
        self._forget_messages()
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

    def _nothing_is_queued(self) -> bool:
        redis = self.servers.redis
        return not redis.hlen("unacked") and not any(redis.llen(queue) for queue in QUEUES.split(","))

    # The tables

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

    def wait_for_the_answer(self, login: str) -> None:
        """Waits until the refresh under way has ended, however it did."""
        wait_for(
            lambda: all(status != "sent" for status, _ in self.attempts(login)),
            seconds=PATIENCE_S,
            what=f"the end of the refresh of {login}",
        )

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

    def differs_from_books(self, login: str) -> list[str]:
        """How the rows of a login differ from what its provider holds."""
        books = self.sandbox.books(self.login_of(login))
        return book_differences(self.servers.engine, books, alias=login, alone=login not in self.relinked)

    def unsettled_now(self) -> list[str]:
        """What is due or under way just now, one line a login."""
        with suppress(OperationalError):
            return self._unsettled(())
        return ["Postgres is away"]

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

    def wait_until_settled(self, logins: Sequence[str], *, seconds: float = PATIENCE_S) -> None:
        """Waits, without any hurry, until all that fell due for these logins is done."""
        left: list[str] = []

        def is_settled() -> bool:
            left[:] = [line for line in self.unsettled_now() if line.partition(":")[0] in logins]
            return not left

        try:
            wait_for(is_settled, seconds=seconds, every=0.1)
        except AssertionError:
            raise AssertionError(f"not settled after {seconds:g} s: {left}") from None

    def hurry_until(self, condition: Callable[[], bool], *, what: str, seconds: float = PATIENCE_S) -> None:
        """Waits for a condition, and lets the waits before retries pass at once."""

        def is_met() -> bool:
            self._hurry()
            return condition()

        wait_for(is_met, seconds=seconds, every=0.3, what=what)

    def let_pass(self, seconds: float) -> None:
        """Nothing happens for a while; for faults whose length is the point."""
        time.sleep(seconds)

    def settle_refreshes(self, *, seconds: float = PATIENCE_S) -> None:
        """Waits until every token is fresh."""
        sql = """
            SELECT p.alias FROM providers p JOIN provider_tokens t ON t.provider_id = p.id
            WHERE p.access_expires_at < now() + interval '1 minute' OR t.lease_until > clock_timestamp()
        """

        def is_done() -> bool:
            self._hurry()
            return not self.query(sql)

        wait_for(is_done, seconds=seconds, every=0.2, what="fresh tokens")

    def send(
        self, task: str, args: list[Any], kwargs: dict[str, Any] | None = None, *, queue: str = "", times: int = 1
    ) -> None:
        """Puts a task message on the broker, or many, each with an id of its own."""
        from worker.app import app

        url = self.environment["REDIS_URL"]
        with app.connection_for_write(url) as connection:
            for _ in range(times):
                app.send_task(task, args, kwargs or {}, connection=connection, **({"queue": queue} if queue else {}))

    def spooled(self) -> list[Path]:
        """Answers that wait on this machine's disk."""
        return list((Path(self.environment["DASHTAM_HOME"]) / "spool").glob("*.json"))

    def wait_until(self, sql: str, *, seconds: float = PATIENCE_S, **values: Any) -> None:
        """Waits until a query has a row."""
        wait_for(lambda: self.query(sql, **values), seconds=seconds, what=sql)

    def _hurry(self) -> None:
        with self.servers.engine.begin() as connection:
            connection.execute(
                text(
                    """
                    UPDATE providers p SET refresh_not_before = NULL,
                        refresh_due_at = CASE WHEN refresh_due_at > :soon AND (p.refresh_failures > 0 OR EXISTS (
                            SELECT FROM token_refreshes r JOIN provider_tokens t USING (provider_id)
                            WHERE r.provider_id = p.id AND r.generation = t.generation AND r.status <> 'sent'
                        )) THEN now() ELSE refresh_due_at END,
                        sync_due_at = CASE
                            WHEN sync_due_at > :soon AND NOT EXISTS (
                                SELECT FROM sync_runs r
                                WHERE r.provider_id = p.id AND r.started_at >= :since AND r.status = 'completed'
                            ) THEN now() ELSE sync_due_at END
                    WHERE status = 'active' AND (refresh_due_at > :soon OR sync_due_at > :soon)
                    """
                ),
                {
                    "soon": self.now() + timedelta(seconds=_BACKOFF_FROM_S),
                    "since": self._since,
                },
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


def _told(log: str) -> str:
    """The end of a log, without the routine."""
    routine = (" received", "succeeded in", "Sending due task", "Discarding revoked", '"refresh_batch"')
    lines = [line for line in log.splitlines() if line.strip() and not any(word in line for word in routine)]
    return "\n".join(line[:600] for line in lines[-25:])


def kill(process: WorkerNode | LocalProcess) -> None:
    """SIGKILL to the process and its children, as when a machine loses its power."""
    (process.process if isinstance(process, WorkerNode) else process).kill()


def kill_all(world: World) -> None:
    """Every worker of the session at once."""
    for worker in world.workers:
        worker.process.signal_group(signal.SIGKILL)
    for worker in world.workers:
        worker.process.wait()


def kill_children(world: World) -> None:
    """SIGKILL to the pool processes of the session's workers; the workers themselves live on."""
    for worker in world.workers:
        if worker.process.running:
            for child in _children(worker):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


def wait_until_stopped(worker: WorkerNode) -> None:
    """Waits until a failpoint has suspended one of its pool processes."""

    def is_stopped() -> bool:
        states = [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in _children(worker)]
        return "T" in states

    wait_for(is_stopped, what=f"a suspended process of {worker.name}", seconds=PATIENCE_S)


def _children(worker: WorkerNode) -> list[int]:
    pid = worker.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def stop(process: WorkerNode) -> None:
    """SIGSTOP: it is alive, holds what it holds, and does nothing."""
    process.process.signal_group(signal.SIGSTOP)


def go_on(process: WorkerNode) -> None:
    """SIGCONT."""
    process.process.signal_group(signal.SIGCONT)


def _stop(process: WorkerNode | LocalProcess) -> None:
    local = process.process if isinstance(process, WorkerNode) else process
    if local.exit_code is not None:
        return
    local.signal_group(signal.SIGKILL)  # their ends are no part of any test, and a kill is quicker
    local.wait()
