"""Ten thousand tokens change their key while refreshes run, by a command that is killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, Row, text

from tests.factories import make_user
from tests.support.environment import new_keys
from tests.support.scripted import ScriptedIntegration
from tests.support.waiting import wait_for
from worker.models import Provider, ProviderToken, new_id
from worker.models.vocabulary import ProviderStatus
from worker.runtime import Runtime
from worker.services import keys
from worker.services.refresh import protocol

TOKENS = 10_000
OLD, NEW = new_keys("k1"), new_keys("k2")
BOTH = f"{NEW},{OLD}"


def _link_all(runtime: Runtime) -> list[UUID]:
    """Logins whose tokens ran out an hour ago; the refresh token of number 7 is `p7-1`."""
    issued_at = datetime.now(UTC) - timedelta(hours=1)
    with runtime.transaction() as session:
        user = make_user(session)
        ids = [new_id() for _ in range(TOKENS)]
        common = {"user_id": user.id, "provider_key": "schwab", "status": ProviderStatus.ACTIVE}
        session.add_all(
            Provider(id=id_, alias=f"Login {n}", access_expires_at=issued_at, refresh_due_at=issued_at, **common)
            for n, id_ in enumerate(ids)
        )
        session.flush()
        session.add_all(
            ProviderToken(
                provider_id=id_,
                access_token=runtime.encryption.seal("access-1", provider_id=id_, kind="access", generation=1),
                refresh_token=runtime.encryption.seal(f"p{n}-1", provider_id=id_, kind="refresh", generation=1),
                key_id=runtime.encryption.key_id,
                generation=1,
                lifetime_s=1800,
                issued_at=issued_at,
            )
            for n, id_ in enumerate(ids)
        )
    return ids


class Refreshing:
    """Refreshes again and again, in a thread, until told to stop."""

    def __init__(self, runtime: Runtime, ids: Sequence[UUID]) -> None:
        self._runtime, self._ids, self._enough = runtime, ids, threading.Event()
        self.done = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Refreshing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        # From both ends: some before the rotation comes to them, some after.
        batches = [self._ids[at : at + 100] for at in range(0, TOKENS, 100)]
        for number in range(len(batches)):
            if self._enough.is_set():
                return
            batch = batches[number // 2 if number % 2 else -1 - number // 2]
            summary = self._runtime.run(protocol.refresh_providers(self._runtime, batch))
            self.done += sum(result.outcome == "refreshed" for result in summary.results.values())


def _rotate(environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "keys", "rotate"],
        env={**os.environ, **environment, "ENCRYPTION_KEYS": BOTH},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.release
def test_ten_thousand_tokens_change_their_key_while_refreshes_run(
    make_runtime: Callable[..., Runtime], engine: Engine, server_environment: Mapping[str, str]
) -> None:
    ids = _link_all(make_runtime(encryption_keys=OLD, integrations={"schwab": ScriptedIntegration()}))
    working = make_runtime(encryption_keys=BOTH, integrations={"schwab": ScriptedIntegration()})

    def left() -> int:
        with engine.connect() as connection:
            return int(connection.scalar(text("SELECT count(*) FROM provider_tokens WHERE key_id = 'k1'")) or 0)

    with Refreshing(working, ids) as refreshing:
        wait_for(lambda: refreshing.done > 0, what="the first refreshes")
        killed = _rotate(server_environment)
        wait_for(lambda: left() < TOKENS - refreshing.done - 1000, what="the rotation to be under way")
        killed.send_signal(signal.SIGKILL)
        killed.communicate()
        left_behind = left()
        second = _rotate(server_environment)
        said, _ = second.communicate(timeout=120)
        assert second.returncode == 0, said

    assert left_behind > 0, "the first rotation was over before it could be killed"
    assert refreshing.done > 0
    assert left() == 0
    after = make_runtime(encryption_keys=NEW, integrations={"schwab": ScriptedIntegration()})
    after.run(keys.require_configured(after))
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT provider_id, generation, key_id, refresh_token FROM provider_tokens"))
        stored = rows.all()
    numbers = {id_: n for n, id_ in enumerate(ids)}
    assert [
        row.provider_id for row in stored if _plain(after, row) != f"p{numbers[row.provider_id]}-{row.generation}"
    ] == []
    assert sum(row.generation for row in stored) == TOKENS + refreshing.done


def _plain(runtime: Runtime, row: Row[Any]) -> str:
    """A stored refresh token, decrypted."""
    return runtime.encryption.unseal(
        row.refresh_token,
        provider_id=row.provider_id,
        kind="refresh",
        generation=row.generation,
        key_id=row.key_id,
    )
