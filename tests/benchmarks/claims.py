"""What claiming 200 due providers costs in a table of ten thousand and of a million.

Measured as in steady work: the server's memory holds the table (`SERVER`), and enough claims have gone before that
most of its pages were written since the last checkpoint.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import create_engine, text
from sqlalchemy.orm import Session

from tests.support.databases import Databases
from worker.crud.providers import claim_refresh_due

SERVER = {"shared_buffers": "512MB", "max_wal_size": "4GB"}

_CLAIMS = 60
_WARM_UP = 100

_LATER = text("UPDATE providers SET refresh_due_at = :at WHERE id = ANY (CAST(string_to_array(:ids, ',') AS uuid[]))")
_FILL = text(
    """
    INSERT INTO providers (id, user_id, provider_key, alias, status, access_expires_at, refresh_due_at)
    SELECT gen_random_uuid(), :user_id, CAST(:key AS text), CAST(:key AS text) || n, 'active',
        now() + interval '30 minutes', now() - interval '1 hour' + random() * interval '2 hours'
    FROM generate_series(1, CAST(:count AS int)) AS n
    """
)


def claim_p50_ratio(
    databases: Databases, say: Callable[[str], None], *, small: int = 10_000, large: int = 1_000_000
) -> float:
    """p50 of claims in the large table over p50 in the small one.

    Each has a database of its own; claims in the two take turns, so that a busy machine hits both alike.
    """
    tables = [_Table(databases, count) for count in (small, large)]
    try:
        for _ in range(_CLAIMS + _WARM_UP):
            for table in tables:
                table.claim()
    finally:
        for table in tables:
            table.engine.dispose()
    medians = [statistics.median(table.durations[_WARM_UP:]) for table in tables]
    say(f"claim of 200: p50 {medians[0] * 1000:.2f} ms of {small:,}, {medians[1] * 1000:.2f} ms of {large:,}")
    return round(medians[1] / medians[0], 2)


class _Table:
    """Providers of which half are due."""

    def __init__(self, databases: Databases, count: int) -> None:
        url = databases.clone(f"claims_{count}")
        self.engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
        self.durations: list[float] = []
        self._now = datetime.now(UTC)
        with self.engine.begin() as connection:
            user = connection.execute(text("INSERT INTO users (id) VALUES (gen_random_uuid()) RETURNING id"))
            connection.execute(_FILL, {"user_id": user.scalar_one(), "key": "bench", "count": count})
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE providers"))

    def claim(self) -> None:
        with Session(self.engine) as session:
            began = time.perf_counter()
            with session.begin():
                claimed = claim_refresh_due(
                    session, provider_key="bench", now=self._now, limit=200, claim=timedelta(minutes=20)
                )
            self.durations.append(time.perf_counter() - began)
        if len(claimed) < 200:
            raise AssertionError(f"only {len(claimed)} rows were due")
        # As the refresh itself does it: what was claimed falls due again later, and nobody runs out of due rows.
        with self.engine.begin() as connection:
            connection.execute(_LATER, {"ids": ",".join(map(str, claimed)), "at": self._now - timedelta(seconds=1)})
