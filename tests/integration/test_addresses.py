"""An address that lists several Postgres servers; a server that became a standby; limits that do not arrive."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlencode

import pytest
from sqlalchemy import Engine, make_url, text

from tests.integration.ops.conftest import free_port
from worker.crud.database import make_engine, missing_limits, transaction
from worker.devstack import Urls
from worker.errors import Unavailable
from worker.settings.addresses import postgres_url


def test_server_that_answers_is_found_behind_one_that_does_not(servers: Urls) -> None:
    there = make_url(servers.database_url)
    user = f"{there.username}:{there.password}"
    address = f"postgresql://{user}@127.0.0.1:{free_port()},{there.host}:{there.port}/{there.database}"
    engine = make_engine(postgres_url(address, writes=True), connections=1)

    with transaction(engine) as session:
        found = session.scalar(text("SELECT current_database()"))

    engine.dispose()
    assert found == there.database


def test_options_in_an_address_are_kept_and_do_not_replace_our_limits(servers: Urls) -> None:
    own = "-c work_mem=1234kB -c statement_timeout=0"
    engine = make_engine(f"{servers.database_url}?{urlencode({'options': own})}", connections=1)

    with transaction(engine) as session:
        found = [session.scalar(text(f"SHOW {name}")) for name in ("work_mem", "statement_timeout", "timezone")]

    engine.dispose()
    assert found[0] == "1234kB"
    assert found[1] != "0"
    assert found[2] == "UTC"


def test_right_that_the_role_lacks_is_told_with_the_command_that_gives_it(servers: Urls) -> None:
    engine = make_engine(servers.database_url, connections=1)

    def without_rights() -> None:
        with transaction(engine) as session:
            session.execute(text("SET LOCAL ROLE pg_monitor"))
            session.execute(text("SELECT * FROM pg_authid"))

    with pytest.raises(Unavailable, match="lacks rights") as caught:
        without_rights()

    engine.dispose()
    assert caught.value.server == "roles"


@pytest.fixture
def read_only(database_url: str) -> Iterator[Engine]:
    """An engine whose server begins to refuse writes once it is connected, as a demoted primary does."""
    engine = make_engine(postgres_url(database_url, writes=True), connections=1)
    with transaction(engine) as session:
        session.execute(text("SELECT 1"))
    yield engine
    engine.dispose()


def test_connection_to_a_server_that_became_a_standby_is_given_up(read_only: Engine) -> None:
    def write() -> int:
        with transaction(read_only) as session:
            before: int = session.scalar(text("SELECT pg_backend_pid()")) or 0
            session.execute(text("CREATE TEMPORARY TABLE t (a int) ON COMMIT DROP"))
            return before

    with transaction(read_only) as session:
        first = session.scalar(text("SELECT pg_backend_pid()"))
        session.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))

    with pytest.raises(Unavailable, match="takes no writes"), transaction(read_only) as session:
        session.execute(text("CREATE SEQUENCE refused"))

    assert write() != first


def test_limits_that_do_not_reach_postgres_are_named(database_url: str) -> None:
    engine = make_engine(database_url, connections=1)

    with transaction(engine) as session:
        assert missing_limits(session) == []
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        session.execute(text("SET LOCAL lock_timeout = 0"))
        dropped = missing_limits(session)

    engine.dispose()
    assert sorted(dropped) == ["idle_in_transaction_session_timeout", "lock_timeout"]
