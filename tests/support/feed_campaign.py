"""Writers and readers of the change feed, each a process of its own that may be killed at any moment.

A reader stores rows and then the cursor, in two transactions of a file of its own. In the end, what each reader has is
compared with the tables.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from sqlalchemy.orm import Session

from tests.support.feed_copy import Copy, differences, stored
from tests.support.feed_statements import LOGIN, OFTEN, RARELY, START
from tests.support.forked import fork_server
from tests.support.waiting import wait_for
from worker.crud.database import Database, make_engine, transaction
from worker.errors import Unavailable
from worker.models.feed import LOADED, STATES, Noun
from worker.services import feed

_ENOUGH = 30
_SETTINGS = "-c timezone=UTC -c lock_timeout=2000 -c statement_timeout=20000"


def populate(url: str) -> list[UUID]:
    """Users, logins and securities; returns the users."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        for statement in (*START, *[LOGIN] * 12):
            connection.execute(statement.encode())
        return [row[0] for row in connection.execute("SELECT id FROM users")]


def write(url: str, seed: int) -> None:
    """Writes without end: small and large transactions, some long, some rolled back, some not waiting for the disk."""
    chance = random.Random(seed)
    while True:
        with suppress(psycopg.Error), psycopg.connect(url, options=_SETTINGS) as connection:
            while True:
                _write_once(connection, chance)


def _write_once(connection: psycopg.Connection[Any], chance: random.Random) -> None:
    try:
        if chance.random() < 0.5:
            connection.execute("SET LOCAL synchronous_commit = off")
        for _ in range(chance.choice((1, 1, 2, 4))):
            statement = chance.choice(RARELY if chance.random() < 0.03 else OFTEN)
            with connection.transaction() if chance.random() < 0.2 else nullcontext():  # a savepoint, or none
                connection.execute(statement.format(count=chance.choice((1, 5, 60))).encode())
        if chance.random() < 0.1:
            time.sleep(chance.random() / 2)  # later transactions commit before this one
        if chance.random() < 0.15:
            connection.rollback()
        else:
            connection.commit()
    except psycopg.Error:
        connection.rollback()
    time.sleep(chance.random() / 20)


class Store:
    """What a reader keeps in its file: rows as JSON, and the cursor."""

    def __init__(self, path: Path) -> None:
        self._file = sqlite3.connect(path, timeout=30)
        self._file.execute("PRAGMA synchronous = off")
        self._file.execute("CREATE TABLE IF NOT EXISTS rows (id TEXT PRIMARY KEY, noun TEXT, row BLOB)")
        self._file.execute("CREATE TABLE IF NOT EXISTS cursor (one INTEGER PRIMARY KEY, cursor TEXT)")
        self.copy = Copy()
        for id_, noun, row in self._file.execute("SELECT id, noun, row FROM rows"):
            self.copy.rows[Noun(noun)][UUID(id_)] = msgspec.json.decode(row, type=STATES[Noun(noun)])
        found = self._file.execute("SELECT cursor FROM cursor").fetchone()
        self.copy.cursor = found and found[0]

    def keep(self, found: feed.Changes) -> None:
        """Stores the rows, and then the cursor. The process may be killed before, between and after."""
        before = {noun: dict(rows) for noun, rows in self.copy.rows.items()}
        self.copy.apply(found.items)
        for noun in LOADED:
            new, old = self.copy.rows[noun], before[noun]
            gone = [(str(id_),) for id_ in old.keys() - new.keys()]
            changed = [
                (str(id_), noun, msgspec.json.encode(row)) for id_, row in new.items() if old.get(id_) is not row
            ]
            self._file.executemany("DELETE FROM rows WHERE id = ?", gone)
            self._file.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", changed)
        self._file.commit()
        self._file.execute("INSERT OR REPLACE INTO cursor VALUES (1, ?)", (found.cursor,))
        self._file.commit()
        self.copy.cursor = found.cursor


@contextmanager
def database_of(url: str) -> Iterator[Any]:
    """What the feed needs of a context."""
    _, _, rest = url.partition("://")
    engine = make_engine(f"postgresql+psycopg://{rest}", connections=2)
    database = Database(engine, threads=2, step_seconds=60)
    try:
        yield SimpleNamespace(db=database.step, engine=engine)
    finally:
        database.close()
        engine.dispose()


def read(url: str, path: Path, user_id: UUID | None, seed: int) -> None:
    """Reads without end."""
    chance = random.Random(seed)
    with database_of(url) as context:
        store = Store(path)
        while True:
            with suppress(Unavailable):
                asyncio.run(_read_to_the_end(context, store, user_id, chance.choice((1, 7, 100, 1000))))
            time.sleep(chance.random() / 5)


async def _read_to_the_end(context: Any, store: Store, user_id: UUID | None, limit: int) -> None:
    async for found in feed.changes(context, user_id=user_id, cursor=store.copy.cursor, limit=limit):
        store.keep(found)


@dataclass
class Outcome:
    """What a campaign has done, and what each reader lacks or has otherwise in the end."""

    kills: int = 0
    crashes: int = 0
    transactions: int = 0
    rows: int = 0
    different: dict[str, Any] = field(default_factory=dict)
    stopped: list[str] = field(default_factory=list)


class Campaign:
    """Writers and readers, killed one after the other.

    Args:
        url: a database with all tables and no rows.
        home: where readers have their files.
        seed: of all chances.
        crash: kills Postgres and starts it again; None to leave it alone.
    """

    def __init__(self, url: str, home: Path, *, seed: int, crash: Callable[[], None] | None = None) -> None:
        self._url, self._home, self._crash = url.replace("+psycopg", ""), home, crash
        self._chance = random.Random(seed)
        self._users = populate(self._url)
        self._processes: dict[str, ForkServerProcess] = {}
        self.outcome = Outcome()

    def run(self, *, writers: int, readers: int, seconds: float, crash_every: float = 60) -> Outcome:
        """Lets them run for some seconds, then compares."""
        jobs = [f"writer {n}" for n in range(writers)] + [f"reader {n}" for n in range(readers)]
        for job in jobs:
            self._start(job)
        end, crash_at = time.monotonic() + seconds, time.monotonic() + crash_every
        while time.monotonic() < end:
            time.sleep(self._chance.uniform(0.05, 0.5))
            for job in jobs:
                if not self._processes[job].is_alive():  # only a cursor that was refused ends a reader
                    self.outcome.stopped.append(job)
                    self._start(job)
            self._kill(self._chance.choice(jobs))
            if self._crash is not None and time.monotonic() > crash_at:
                crash_at += crash_every
                self._crash()
                self.outcome.crashes += 1
        wait_for(self._have_written, seconds=120, what="writers that have written")
        for process in self._processes.values():
            self._end(process)
        self._compare(readers)
        return self.outcome

    def _have_written(self) -> bool:
        with psycopg.connect(self._url) as connection:
            found = connection.execute("SELECT count(DISTINCT xid) FROM change_log").fetchone()
        return found is not None and found[0] >= _ENOUGH

    def _of(self, reader: int) -> UUID | None:
        return None if reader % 2 == 0 else self._users[reader // 2 % len(self._users)]

    def _start(self, job: str) -> None:
        kind, number = job.split()
        seed = self._chance.getrandbits(32)
        path = self._home / f"reader-{number}.sqlite"
        arguments = (self._url, seed) if kind == "writer" else (self._url, path, self._of(int(number)), seed)
        process = fork_server().Process(target=write if kind == "writer" else read, args=arguments, daemon=True)
        process.start()
        self._processes[job] = process

    def _kill(self, job: str) -> None:
        self._end(self._processes[job])
        self.outcome.kills += 1
        self._start(job)

    @staticmethod
    def _end(process: ForkServerProcess) -> None:
        if process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        process.join()

    def _compare(self, readers: int) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while connection.execute(_STILL_WRITING).fetchone() != (0,):  # Postgres notices late who was killed
                time.sleep(0.05)
            (self.outcome.transactions,) = connection.execute(
                "SELECT count(DISTINCT xid) FROM change_log"
            ).fetchone() or (0,)
        with database_of(self._url) as context:
            for number in range(readers):
                store = Store(self._home / f"reader-{number}.sqlite")
                asyncio.run(_read_to_the_end(context, store, self._of(number), 5000))
                with transaction(context.engine) as session:
                    there = self._there(session, number)
                self.outcome.rows += sum(map(len, there.values()))
                if different := differences(store.copy.rows, there):
                    self.outcome.different[f"reader {number}"] = different

    def _there(self, session: Session, reader: int) -> Any:
        return stored(session, user_id=self._of(reader))


_STILL_WRITING = "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()"
