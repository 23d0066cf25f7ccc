"""How many files a reader meets who follows one login's refresh, or sync, from the schedule to the row."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.support.environment import ROOT
from tests.support.fixtures import LinkedProvider
from worker.runtime import Runtime
from worker.services.availability import breaker
from worker.services.refresh import spool
from worker.tasks import accounts, tokens

# One more than is counted now: whether a budget of calls is filled up, or a heartbeat falls due, is a matter of time.
REFRESH_FILES = 29
SYNC_FILES = 61
_HOMES = (f"{ROOT}/worker/", f"{ROOT}/schedules/")


class Trip:
    """Notes which of the project's files are entered, in whatever thread."""

    def __init__(self) -> None:
        self.files: set[str] = set()

    def note(self, frame: FrameType, event: str, _: Any) -> None:
        """What `sys.setprofile` calls."""
        if event == "call" and frame.f_code.co_filename.startswith(_HOMES):
            self.files.add(frame.f_code.co_filename.removeprefix(f"{ROOT}/"))

    def of(self, tick: Callable[[], None]) -> list[str]:
        """The files that one tick, and the tasks that it sends, enter."""
        self.files.clear()
        tick()
        return sorted(self.files)


@pytest.fixture
def trip() -> Iterator[Trip]:
    made, before = Trip(), sys.getprofile()
    # Threads that begin later, as all of a new runtime do.
    threading.setprofile(made.note)
    sys.setprofile(made.note)
    yield made
    sys.setprofile(before)
    threading.setprofile(None)


@pytest.mark.deep
def test_refresh_and_sync_enter_few_files(
    runtime: Runtime, engine: Engine, refreshed_login: LinkedProvider, trip: Trip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a process that runs already: its clients are open and what it remembers for seconds is remembered."""
    monkeypatch.setattr(breaker, "CACHE_SECONDS", 60)
    monkeypatch.setattr(spool, "_EVERY_SECONDS", 60)
    monkeypatch.setattr(tokens.refresh_providers, "apply_async", lambda args, **_: tokens.refresh_providers(*args))
    monkeypatch.setattr(accounts.sync_providers, "delay", lambda *args: accounts.sync_providers(*args))

    def all_due() -> None:
        with engine.begin() as connection:
            connection.execute(text("UPDATE providers SET refresh_due_at = now(), sync_due_at = now()"))
            connection.execute(text("UPDATE provider_tokens SET issued_at = issued_at - interval '28 minutes'"))

    tokens.refresh_due()
    accounts.sync_due()
    all_due()
    refresh = trip.of(tokens.refresh_due)
    all_due()
    sync = trip.of(accounts.sync_due)

    assert "worker/crud/refresh/tokens.py" in refresh
    assert "worker/crud/sync/transactions.py" in sync
    assert len(refresh) <= REFRESH_FILES, "\n".join(refresh)
    assert len(sync) <= SYNC_FILES, "\n".join(sync)
