"""Changes in the books of the sandbox's logins, and how large rows are: for `bench_idle`."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, text

from tests.benchmarks import replay
from tests.benchmarks.sync_setup import Bench

# A copy has no rows that are gone and no half-empty pages of indexes.
_COPY = (
    "DROP TABLE IF EXISTS copied",
    "CREATE TABLE copied (LIKE sync_runs INCLUDING ALL)",
    "INSERT INTO copied SELECT * FROM sync_runs WHERE repeats IS NOT NULL ORDER BY started_at",
    "INSERT INTO copied SELECT * FROM sync_runs WHERE repeats IS NULL AND added + changed > 0 ORDER BY started_at",
)
_SIZE = "SELECT pg_total_relation_size('copied')"


def change_rows(given: Bench, logins: Sequence[str], rows: int, description: str) -> None:
    """Gives `rows` transactions of each login this description."""
    for login in logins:
        posted = [row["id"] for row in given.admin.books(login)["transactions"] if row["status"] == "posted"]
        changes = [{"op": "modify", "id": id_, "description": description} for id_ in posted[-rows:]]
        given.admin.mutate(login, *changes)
    replay.forget(given.feed_url)


def run_bytes(engine: Engine, *, repeats: bool) -> int:
    """Bytes of the row of a run with its entries in indexes: of those that repeat the last one, or that had news."""
    drop, create, repeated, others = _COPY
    with engine.begin() as connection:
        connection.execute(text(drop))
        connection.execute(text(create))
        empty = connection.execute(text(_SIZE)).scalar_one()
        copied = connection.execute(text(repeated if repeats else others)).rowcount
        return round((connection.execute(text(_SIZE)).scalar_one() - empty) / copied)


_ROWS = """
    SELECT relname, (pg_total_relation_size(relid) / n_live_tup)::int AS size FROM pg_stat_user_tables
    WHERE n_live_tup >= 1000 ORDER BY relname
"""


def row_bytes(engine: Engine) -> dict[str, int]:
    """Bytes of a row with its entries in indexes, of the tables that have a thousand rows."""
    with engine.connect() as connection:
        return {row.relname: row.size for row in connection.execute(text(_ROWS))}
