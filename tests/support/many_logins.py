"""Fills a database with very many logins and their history, for tests and benchmarks of what reads all of them."""

from __future__ import annotations

from sqlalchemy import Engine, text

# Ids are of version 7, as the worker makes them: their first 48 bits are the time in milliseconds.
_ID = """CAST(lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0') || '7'
    || substr(md5(random()::text), 1, 3) || '8' || substr(md5(random()::text), 1, 15) AS uuid)"""
_USERS = f"""INSERT INTO users (id, email, created_at)
    SELECT {_ID.format(at="now() - n * interval '1 minute'")}, 'person' || n || '@example.com', now()
    FROM generate_series(1, :people) AS n"""  # noqa: S608 - constants of this file
_LOGINS = f"""INSERT INTO providers (id, user_id, provider_key, alias, status, status_reason, created_at,
        access_expires_at, grant_expires_at, refreshed_at, refresh_due_at, synced_at, sync_due_at)
    SELECT {_ID.format(at="now() - n * interval '1 minute'")}, u.id, CASE WHEN n % 2 = 0 THEN 'schwab' ELSE 'plaid' END,
        (ARRAY['Home', 'Savings', 'My brokerage', 'Work', 'Pension'])[1 + n % 5] || ' ' || n,
        CASE WHEN n % 100 = 0 THEN 'needs_reauth' WHEN n % 200 = 1 THEN 'paused' ELSE 'active' END,
        CASE WHEN n % 100 = 0 THEN 'grant_expired' END, now() - n * interval '1 minute',
        now() + (n % 1800) * interval '1 s', now() + interval '5 days' + n * interval '1 s',
        now() - (n % 1800) * interval '1 s', now() + (n % 1700 - 10) * interval '1 s',
        now() - (n % 14400) * interval '1 s', now() + (n % 14400 - 10) * interval '1 s'
    FROM generate_series(1, :logins) AS n JOIN (
        SELECT id, row_number() OVER () AS number FROM users
    ) AS u ON u.number = 1 + n % :people"""  # noqa: S608
_REFRESHES = f"""INSERT INTO token_refreshes (id, provider_id, generation, status, trigger, lease_owner, started_at,
        finished_at)
    SELECT {_ID.format(at="p.refreshed_at - k * interval '25 minutes'")}, p.id, 3 - k, 'done', 'schedule',
        gen_random_uuid(), p.refreshed_at - k * interval '25 minutes', p.refreshed_at - k * interval '25 minutes'
    FROM providers p CROSS JOIN generate_series(0, 2) AS k"""  # noqa: S608
_RUNS = f"""INSERT INTO sync_runs (id, provider_id, status, trigger, mode, owner, started_at, heartbeat_at, finished_at,
        pages, added, unchanged)
    SELECT {_ID.format(at="p.synced_at - k * interval '4 hours'")}, p.id, 'completed', 'schedule', 'incremental',
        gen_random_uuid(), p.synced_at - k * interval '4 hours', p.synced_at - k * interval '4 hours',
        p.synced_at - k * interval '4 hours' + interval '2 s', 3, 4, 300
    FROM providers p CROSS JOIN generate_series(0, 2) AS k"""  # noqa: S608
_LETTERS = f"""INSERT INTO task_failures (id, task_id, task_name, arguments, reason, deliveries, created_at)
    SELECT {_ID.format(at="now() - n * interval '1 minute'")}, 'message-' || n,
        'worker.tasks.accounts.sync_providers', '{{"args": [[]], "kwargs": {{}}}}', 'it killed its worker', 3,
        now() - n * interval '1 minute'
    FROM generate_series(1, 200) AS n"""  # noqa: S608
_TABLES = ("users", "providers", "token_refreshes", "sync_runs", "task_failures")


def fill(engine: Engine, *, logins: int) -> None:
    """Adds so many logins, some of them paused or in need of their user, each with three refreshes and three runs."""
    with engine.begin() as connection:
        values = {"logins": logins, "people": max(1, logins // 3)}
        for statement in (_USERS, _LOGINS, _REFRESHES, _RUNS, _LETTERS):
            connection.execute(text(statement), values)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in _TABLES:
            connection.execute(text(f"VACUUM ANALYZE {table}"))
