"""The change feed while many write and read and are killed, Postgres too. `make feed-campaign` does it for longer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.databases import Databases
from tests.support.faults_servers import Servers
from tests.support.feed_campaign import Campaign

SECONDS = float(os.environ.get("FEED_SECONDS", "6"))
SEED = int(os.environ.get("FEED_SEED", "20260105"))


def test_ten_writers_and_ten_readers_that_are_killed_miss_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = Servers(tmp_path / "servers")

    def crash() -> None:
        with servers.postgres_down():
            pass

    with servers.session():
        url = Databases(servers.direct_addresses()["DATABASE_URL"]).clone("feed")
        campaign = Campaign(url, tmp_path, seed=SEED, crash=crash)
        done = campaign.run(writers=10, readers=10, seconds=SECONDS, crash_every=min(45.0, SECONDS / 2))

    with capsys.disabled():
        print(  # noqa: T201 - the seed is what a failure is repeated with
            f"\nchange feed: seed {SEED}, {SECONDS:.0f} s, {done.transactions} transactions, {done.kills} kills,"
            f" {done.crashes} crashes of Postgres, {done.rows} rows compared, {len(done.different)} readers differ"
        )
    assert done.stopped == []
    assert done.different == {}
    assert done.transactions > 50
    assert done.crashes > 0
