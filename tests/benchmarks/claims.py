"""What claiming 200 due providers costs in a table of ten thousand and of a million."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from worker.crud.providers import claim_refresh_due

_FILL = text(
    """
    INSERT INTO providers (id, user_id, provider_key, alias, status, access_expires_at, refresh_due_at)
    SELECT gen_random_uuid(), :user_id, CAST(:key AS text), CAST(:key AS text) || n, 'active',
        now() + interval '30 minutes', now() - interval '1 hour' + random() * interval '2 hours'
    FROM generate_series(1, CAST(:count AS int)) AS n
    """
)


def claim_p50_ratio(
    engine: Engine, say: Callable[[str], None], *, small: int = 10_000, large: int = 1_000_000
) -> float:
    """p50 of claims in the large table over p50 in the small one; each table holds nothing else."""
    medians = [_claim_p50(engine, count) for count in (small, large)]
    say(f"claim of 200: p50 {medians[0] * 1000:.2f} ms of {small:,}, {medians[1] * 1000:.2f} ms of {large:,}")
    return round(medians[1] / medians[0], 2)


def _claim_p50(engine: Engine, count: int, *, claims: int = 60) -> float:
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE users CASCADE"))
        user_id = connection.execute(
            text("INSERT INTO users (id) VALUES (gen_random_uuid()) RETURNING id")
        ).scalar_one()
        connection.execute(_FILL, {"user_id": user_id, "key": "bench", "count": count})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE providers"))
    durations = []
    now = datetime.now(UTC)
    for _ in range(claims):
        with Session(engine) as session:
            began = time.perf_counter()
            with session.begin():
                claimed = claim_refresh_due(
                    session, provider_key="bench", now=now, limit=200, claim=timedelta(minutes=20)
                )
            durations.append(time.perf_counter() - began)
        # The small table runs out of due rows; whoever was claimed is made due again, outside the measurement.
        if len(claimed) < 200:
            raise AssertionError(f"only {len(claimed)} rows were due")
        if count < 100_000:
            with engine.begin() as connection:
                connection.execute(
                    text("UPDATE providers SET refresh_due_at = :at WHERE id = ANY (:ids)"),
                    {"at": now - timedelta(minutes=30), "ids": list(claimed)},
                )
    return statistics.median(durations)
