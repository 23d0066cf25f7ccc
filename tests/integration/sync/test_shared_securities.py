"""Two logins have the same security, and their runs store it at the same moment."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from tests.integration.sync.conftest import Linked
from tests.support.waiting import wait_for
from worker.crud.database import OpenTransaction
from worker.crud.sync import nouns
from worker.crud.sync.accounts import store_securities
from worker.crud.sync.sources import Known
from worker.crud.sync.work import Rules, RunKey, Work
from worker.models import new_id
from worker.models.records import SecurityRecord
from worker.models.vocabulary import SecurityType

pytestmark = pytest.mark.deep

KEY = "cusip:037833100"
RULES = Rules(content_hashes=nouns.raw_hasher("model", 1), mask=lambda raw: {}, mass_deletion_share=0.5)


def store(linked: Linked, session: OpenTransaction, name: str, *, describe: bool) -> dict[str, bytes]:
    run = RunKey(id=new_id(), owner=new_id(), provider_id=linked.provider_id, provider_key="model")
    work = Work(
        session=session, run=run, rules=RULES, now=datetime.now(UTC), accounts=Known(), loop_id=None, careful=True
    )
    return store_securities(work, [SecurityRecord(key=KEY, type=SecurityType.EQUITY, name=name)], describe=describe)


@pytest.mark.parametrize("position_first", [True, False], ids=["position first", "transaction first"])
def test_description_of_a_position_stays_whichever_run_is_first(linked: Linked, position_first: bool) -> None:
    names = {True: "as the position says", False: "as it was called on the day of a transaction"}
    found: list[dict[str, bytes]] = []

    def second() -> None:
        with linked.runtime.transaction() as session:
            found.append(store(linked, session, names[not position_first], describe=not position_first))

    with linked.runtime.transaction() as session:
        found.append(store(linked, session, names[position_first], describe=position_first))
        thread = threading.Thread(target=second)
        thread.start()
        wait_for(
            lambda: linked.rows(
                "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ),
            what="the second run to wait for the first",
        )
    thread.join()

    assert found[0] == found[1]
    assert linked.rows("SELECT name FROM securities WHERE key = :key", key=KEY) == [(names[True],)]
