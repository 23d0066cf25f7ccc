"""The commands under "Back up and restore" in docs/operations.md, run as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from tests.support.databases import Databases
from tests.support.environment import ROOT
from tests.support.feed_campaign import database_of
from worker.crud import audit
from worker.devstack.binaries import postgres_places
from worker.models.feed_cursor import CursorRestored
from worker.services import feed
from worker.services.encryption import EncryptionService
from worker.settings import Settings

TEXT = (ROOT / "docs/operations.md").read_text()


def block(name: str) -> str:
    """The commands that follow `<!-- run: name -->`."""
    found = re.search(rf"^<!-- run: {name} -->\n```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


@pytest.fixture
def restored(databases: Databases) -> Iterator[tuple[str, Engine]]:
    """An empty database."""
    url = databases.create("restored")
    engine = create_engine(url)
    yield url, engine
    engine.dispose()


def rows(engine: Engine) -> dict[str, list[str]]:
    """All rows of all tables, as text."""
    with engine.connect() as connection:
        names = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
        return {
            name: sorted(connection.execute(text(f'SELECT t::text FROM "{name}" AS t')).scalars())  # noqa: S608
            for name in names
        }


def behind_one_that_is_away(url: str) -> str:
    """The address of two servers, as one writes it for a primary and its standby; the first does not answer."""
    there = make_url(url)
    user = f"{there.username}:{there.password}"
    return f"postgresql://{user}@127.0.0.1:1,{there.host}:{there.port}/{there.database}?target_session_attrs=read-write"


def test_backup_is_restored_whole_with_tokens_that_the_keys_still_open(
    engine: Engine, database_url: str, settings: Settings, restored: tuple[str, Engine], tmp_path: Path
) -> None:
    encryption = EncryptionService(settings.encryption_keys.get_secret_value())
    with Session(engine) as session, session.begin():
        provider = make_linked_provider(session, encryption, access_token="access-before-the-backup")
        audit.record(session, provider_id=provider.id, action="linked", actor="user")
    cursor = asyncio.run(_read_feed(database_url))
    restored_url, restored_engine = restored
    programs = os.pathsep.join(str(place.bin) for place in postgres_places())
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "DATABASE_URL": behind_one_that_is_away(database_url),
        "RESTORED_URL": restored_url,
        "BACKUP": str(tmp_path / "backup"),
    }

    for name in ("backup", "restore"):
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", block(name)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    before, after = rows(engine), rows(restored_engine)
    assert {name: len(found) for name, found in after.items()} == {name: len(found) for name, found in before.items()}
    assert after == before
    with restored_engine.connect() as connection:
        token = connection.execute(text("SELECT * FROM provider_tokens")).mappings().one()
        bound = {"provider_id": token["provider_id"], "generation": token["generation"], "key_id": token["key_id"]}
        assert encryption.unseal(token["access_token"], kind="access", **bound) == "access-before-the-backup"
    with Session(restored_engine) as session:
        assert audit.verify_chains(session).problems == []
    assert asyncio.run(_read_feed(database_url, cursor)) == cursor
    with pytest.raises(CursorRestored, match="restored from a dump"):
        asyncio.run(_read_feed(restored_url, cursor))
    assert asyncio.run(_read_feed(restored_url)) != cursor


async def _read_feed(url: str, cursor: str | None = None) -> str:
    """Reads the change feed to its end; returns the last cursor."""
    with database_of(url) as context:
        return [found.cursor async for found in feed.changes(context, cursor=cursor)][-1]
