"""A process that stands still within a transaction: its locks come free, and it learns that nothing was kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider
from worker.crud.database import make_engine, transaction
from worker.crud.sync.apply import driver
from worker.errors import Unavailable
from worker.models import Provider
from worker.runtime import Runtime

pytestmark = pytest.mark.deep

_IDLE_SECONDS = 0.3


def by_the_orm(session: Session) -> None:
    session.execute(text("SELECT 1"))


def by_the_driver(session: Session) -> None:
    driver(session).execute("SELECT 1")


@pytest.fixture
def own_engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, connections=1, idle_seconds=_IDLE_SECONDS)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("goes_on", [by_the_orm, by_the_driver])
def test_locks_of_a_process_that_stands_still_come_free(
    runtime: Runtime, own_engine: Engine, goes_on: Callable[[Session], None]
) -> None:
    with runtime.transaction() as session:
        provider_id = make_linked_provider(session, runtime.encryption).id

    def stand_still_and_go_on() -> None:
        with transaction(own_engine) as stands_still:
            stands_still.get_one(Provider, provider_id, with_for_update=True).alias = "Lost"
            stands_still.flush()
            with runtime.transaction() as other:
                other.execute(text("SET LOCAL lock_timeout = '20s'"))
                other.get_one(Provider, provider_id, with_for_update=True).alias = "Taken over"
            time.sleep(_IDLE_SECONDS)
            goes_on(stands_still)

    with pytest.raises(Unavailable):
        stand_still_and_go_on()

    with transaction(own_engine) as again:
        assert again.get_one(Provider, provider_id).alias == "Taken over"


def test_worker_that_stands_still_in_a_transaction_loses_it_with_its_lease(runtime: Runtime) -> None:
    own = Runtime(runtime.settings.model_copy(update={"lease_seconds": 7}), integrations={})
    with closing(own), own.transaction() as session:
        assert session.scalar(text("SHOW idle_in_transaction_session_timeout")) == "7s"
