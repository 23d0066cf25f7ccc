"""A scrape of a large fleet."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis as redis_client
from sqlalchemy import Connection, Engine, event, text

from tests.integration.ops.scraping import Scraped
from worker.settings import ExporterSettings, Settings, load
from worker.telemetry.exporter import Exporter

MANY = 100_000


@pytest.mark.release
def test_a_scrape_reads_each_of_a_hundred_thousand_logins_three_times(
    settings: Settings, engine: Engine, redis: redis_client.Redis, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'many@example.com')"))
        connection.execute(
            text(
                """
                INSERT INTO providers (id, user_id, provider_key, alias, status, access_expires_at, grant_expires_at,
                    refreshed_at, refresh_due_at, synced_at, sync_due_at)
                SELECT gen_random_uuid(), (SELECT id FROM users WHERE email = 'many@example.com'), 'schwab', 'a' || n,
                    'active', now() + n * interval '20 ms', now() + interval '3 days',
                    now() - n * interval '10 ms', now() + (n - 500) * interval '15 ms',
                    now() - n * interval '100 ms', now() + (n - 500) * interval '100 ms'
                FROM generate_series(1, :many) AS n
                """
            ),
            {"many": MANY},
        )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE providers"))

    with closing(Exporter(load(ExporterSettings, DASHTAM_HOME=tmp_path))) as exporter:
        asked = _statements(exporter)
        answer = exporter.answer()
    with engine.connect() as connection:
        read = [_rows_read(connection, *statement) for statement in asked]

    assert Scraped(answer)("dashtam_providers", integration="schwab", status="active") == MANY
    assert len(asked) < 12, "so many statements, however many logins there are"
    # Once for the gauges of logins, and once for each queue of the view `work_waiting`.
    assert MANY <= sum(read) < 3.01 * MANY, read


def _statements(exporter: Exporter) -> list[tuple[str, Any]]:
    """What the exporter sends to Postgres from now on: each statement with its values."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        asked.append((statement, values))

    event.listen(exporter._engine, "before_cursor_execute", note)
    return asked


def _rows_read(connection: Connection, statement: str, values: Any) -> int:
    """How many rows of tables Postgres looks at for it, those included that it then leaves out."""
    plan = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", values).scalar_one()
    return _looked_at(plan[0]["Plan"])


def _looked_at(node: dict[str, Any]) -> int:
    below = sum(_looked_at(child) for child in node.get("Plans", []))
    if "Relation Name" not in node:
        return below
    each = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return below + round(each * node["Actual Loops"])
