"""An address that lists several Postgres servers, as one writes it for a primary and its standbys."""

from __future__ import annotations

from sqlalchemy import make_url, text

from tests.integration.ops.conftest import free_port
from worker.crud.database import make_engine, transaction
from worker.devstack import Urls
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
