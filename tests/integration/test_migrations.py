"""Migrations: from nothing to the models and back, without rest."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from tests.support.databases import Databases, check, downgrade, migrate, migrating
from tests.support.environment import ROOT

# Everything of ours that could be left behind: tables, indexes, sequences, views, types, functions.
_OWN_OBJECTS = text(
    """
    SELECT 'relation ' || relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace
    UNION ALL SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """
)


@pytest.mark.deep
def test_tables_after_all_migrations_are_those_of_the_models(databases: Databases) -> None:
    check(databases.clone("check"))


@pytest.mark.deep
def test_downgrade_to_nothing_leaves_nothing_and_can_be_undone(databases: Databases) -> None:
    url = databases.clone("downgrade")

    downgrade(url, "base")

    assert _own_objects(url) <= {
        "relation alembic_version",
        "relation alembic_version_pkc",
        "type alembic_version",
        "type _alembic_version",
    }
    migrate(url)
    check(url)


@pytest.mark.deep
@pytest.mark.long
def test_upgrade_command_migrates_an_empty_database_and_is_harmless_again(databases: Databases) -> None:
    url = databases.create("command")

    upgraded = subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert upgraded.returncode == 0, upgraded.stderr
    assert "relation providers" in _own_objects(url)
    migrate(url)
    check(url)


def test_migration_of_an_unreachable_database_names_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://someone:hush-hush@127.0.0.1:1/none")

    with pytest.raises(OperationalError) as refused:
        command.upgrade(Config(ROOT / "alembic.ini"), "head")

    assert "hush-hush" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.deep
def test_migration_that_finds_a_table_locked_gives_up_and_lets_the_others_pass(databases: Databases) -> None:
    url = databases.clone("locked")
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as other, migrating(url) as config:
        other.execute(text("LOCK TABLE alembic_version"))
        config.attributes["lock_timeout"] = "10ms"

        with pytest.raises(OperationalError, match="lock timeout"):
            command.upgrade(config, "head")


@pytest.mark.deep
def test_link_that_was_ended_before_gets_its_last_generation_from_the_audit_log(databases: Databases) -> None:
    url, engine = _at(databases, "generations", "0019")
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                WITH u AS (
                    INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'somebody@example.com') RETURNING id
                ), p AS (
                    INSERT INTO providers (id, user_id, provider_key, alias, status)
                    SELECT gen_random_uuid(), id, 'schwab', 'Main', 'unlinked' FROM u RETURNING id
                )
                INSERT INTO provider_audit_logs (id, provider_id, action, actor, detail)
                SELECT gen_random_uuid(), p.id, 'token_refreshed', 'system', jsonb_build_object('generation', n)
                FROM p, generate_series(1, 7) AS n
                """
            )
        )

    migrate(url)

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT last_generation FROM providers")) == 7


@pytest.mark.deep
def test_balances_that_were_stated_before_are_kept_by_day(databases: Databases) -> None:
    url, engine = _at(databases, "balance_days", "0032")
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                WITH u AS (
                    INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'somebody@example.com') RETURNING id
                ), p AS (
                    INSERT INTO providers (id, user_id, provider_key, alias, status)
                    SELECT gen_random_uuid(), id, 'model', 'Main', 'active' FROM u RETURNING id
                ), a AS (
                    INSERT INTO accounts
                        (id, provider_id, provider_account_id, name, type, subtype, currency, status, content_hash)
                    SELECT gen_random_uuid(), id, 'a', 'A', 'depository', 'checking', 'USD', 'active', '' FROM p
                    RETURNING id
                )
                INSERT INTO balances (id, account_id, current, currency, source, content_hash, as_of, taken_at)
                SELECT gen_random_uuid(), a.id, stated.current, 'USD', 'x', '', stated.as_of, stated.taken_at
                FROM a, (VALUES
                    (1, NULL, TIMESTAMPTZ '2025-03-14 08:00Z'), (2, NULL, '2025-03-14 23:59Z'),
                    (3, TIMESTAMPTZ '2025-03-15 21:00-04', '2025-03-16 09:00Z'),
                    (4, '2025-03-15 06:00Z', '2025-03-17 00:00Z')
                ) AS stated (current, as_of, taken_at)
                """
            )
        )

    migrate(url)

    with engine.connect() as connection:
        found = connection.execute(text("SELECT day::text, current::int FROM dashtam_v1.balance_days ORDER BY day"))
        assert [tuple(row) for row in found] == [("2025-03-14", 2), ("2025-03-15", 4), ("2025-03-16", 3)]


@pytest.mark.deep
def test_end_of_access_tokens_is_known_at_once_and_no_login_is_forgotten(databases: Databases) -> None:
    url, engine = _at(databases, "access_ends", "0038")
    with engine.begin() as connection:
        connection.execute(
            text(
                """
                WITH u AS (INSERT INTO users (id, email) VALUES (gen_random_uuid(), 'a@example.com') RETURNING id)
                INSERT INTO providers
                    (id, user_id, provider_key, alias, status, refresh_due_at, sync_due_at, access_expires_at)
                SELECT gen_random_uuid(), u.id, 'model', n::text, 'active', now(), now(), ends.at
                FROM u, (VALUES (1, NULL), (2, TIMESTAMPTZ '2025-03-14 08:00Z')) AS ends (n, at)
                """
            )
        )

    migrate(url, "0040")

    with engine.connect() as connection:
        found = connection.execute(
            text(
                """
                SELECT alias, kind, due_times.access_expires_at IS NOT DISTINCT FROM providers.access_expires_at
                FROM due_times JOIN providers ON providers.id = provider_id WHERE kind = 'refresh' ORDER BY alias
                """
            )
        )
        assert [tuple(row) for row in found] == [("1", "refresh", True), ("2", "refresh", True)]
        assert connection.scalar(text("SELECT count(*) FROM due_times WHERE kind = 'sync'")) == 2


@pytest.mark.deep
@pytest.mark.parametrize("begins_with", ["providers", "due_times"])
def test_end_of_access_tokens_is_added_beside_workers_that_use_both_tables(
    databases: Databases, begins_with: str
) -> None:
    url, engine = _at(databases, f"ends_beside_{begins_with}", "0038")
    ended = threading.Event()

    def work() -> None:
        """What a worker does when it stores a token, or claims: both tables, in one transaction."""
        while not ended.is_set():
            with engine.begin() as connection:
                for table in sorted(("providers", "due_times"), key=lambda table: table != begins_with):
                    connection.execute(text(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE"))
                    time.sleep(0.002)

    with ThreadPoolExecutor() as pool:
        workers = [pool.submit(work) for _ in range(4)]
        try:
            migrate(url, "0040")
        finally:
            ended.set()

    assert [worker.exception() for worker in workers] == [None] * 4


def _at(databases: Databases, name: str, revision: str) -> tuple[str, Engine]:
    """A database with the schema of an earlier revision: its address, and an engine for it."""
    url = databases.create(name)
    migrate(url, revision)
    return url, create_engine(url, poolclass=NullPool)


def _own_objects(url: str) -> set[str]:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        return set(connection.scalars(_OWN_OBJECTS))
