"""The change feed while many write and read and are killed, Postgres too. `make feed-campaign` does it for longer."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.databases import Databases
from tests.support.faults_servers import Servers
from tests.support.feed_campaign import Campaign, database_of, populate
from worker.models.feed_cursor import CursorAhead, CursorRestored
from worker.services import feed

SECONDS = float(os.environ.get("FEED_SECONDS", "4"))
SEED = int(os.environ.get("FEED_SEED", "20260105"))


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A Postgres that may be killed. What did not wait for the disk is not on the disk for ten seconds."""
    made = Servers(tmp_path_factory.mktemp("feed") / "servers", wal_writer_delay="10s")
    with made.session():
        yield made


@pytest.fixture
def url(servers: Servers) -> str:
    """A database without rows."""
    return Databases(servers.direct_addresses()["DATABASE_URL"]).clone("feed")


def read(url: str, cursor: str | None) -> tuple[list[Any], str]:
    """All changes, and the last cursor."""

    async def to_the_end(context: Any) -> tuple[list[Any], str]:
        items, last = [], ""
        async for found in feed.changes(context, cursor=cursor):
            items += found.items
            last = found.cursor
        return items, last

    with database_of(url) as context:
        return asyncio.run(to_the_end(context))


def execute(url: str, *statements: str) -> None:
    """Statements in one transaction."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_what_was_read_outlives_a_crash_though_its_writer_did_not_wait_for_the_disk(servers: Servers, url: str) -> None:
    populate(url)
    _, cursor = read(url, None)
    execute(url, "SET LOCAL synchronous_commit = off", "UPDATE accounts SET name = 'read before the crash'")
    told, after = read(url, cursor)

    with servers.postgres_down():
        pass

    assert {change.row.name for change in told} == {"read before the crash"}
    assert read(url, after) == ([], after)
    again, _ = read(url, None)
    assert {change.row.name for change in again} == {"read before the crash"}


def test_cursor_is_refused_after_the_disk_was_put_back_to_an_earlier_time(
    servers: Servers, url: str, tmp_path: Path
) -> None:
    populate(url)
    _, early = read(url, None)
    with servers.engine.connect() as connection:
        data = connection.exec_driver_sql("SHOW data_directory").scalar_one()
    with servers.postgres_down():
        subprocess.run(["/bin/cp", "-a", data, str(tmp_path / "copy")], check=True)
    execute(url, "UPDATE accounts SET name = 'lost'")
    _, late = read(url, early)
    with servers.postgres_down():
        shutil.rmtree(data)
        subprocess.run(["/bin/cp", "-a", str(tmp_path / "copy"), data], check=True)

    with pytest.raises((CursorAhead, CursorRestored)):
        read(url, late)
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        for _ in range(30):  # the numbers of the lost transactions are given to others
            connection.execute("SELECT pg_current_xact_id()")
    with pytest.raises(CursorRestored, match="went back to an earlier state"):
        read(url, late)
    assert read(url, early)[0] == []


def test_ten_writers_and_ten_readers_that_are_killed_miss_nothing(
    servers: Servers, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash() -> None:
        with servers.postgres_down():
            pass

    campaign = Campaign(url, tmp_path, seed=SEED, crash=crash)
    done = campaign.run(writers=10, readers=10, seconds=SECONDS, crash_every=min(45.0, SECONDS / 2))

    with capsys.disabled():
        print(  # noqa: T201 - the seed is what a failure is repeated with
            f"\nchange feed: seed {SEED}, {SECONDS:.0f} s, {done.transactions} transactions, {done.kills} kills,"
            f" {done.crashes} crashes of Postgres, {done.rows} rows compared, {len(done.different)} readers differ"
        )
    assert done.stopped == []
    assert done.different == {}
    assert done.crashes > 0
