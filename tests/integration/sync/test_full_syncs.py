from __future__ import annotations

import pytest

from tests.integration.sync.conftest import Linked
from tests.integration.sync.feeds import Movement, Plan


@pytest.fixture
def synced(linked: Linked) -> Linked:
    """Six rows of one account, stored."""
    for number in range(6):
        linked.integration.books.put(Movement(f"t{number}", "A", "1.00"))
    linked.sync()
    linked.integration.asked = 0
    return linked


def test_full_sync_withdraws_what_the_provider_lists_no_more(synced: Linked) -> None:
    synced.integration.books.forget("t0")

    run = synced.sync(mode="full")

    assert sorted(synced.live()) == ["t1", "t2", "t3", "t4", "t5"]
    assert run.removed == 1


def test_row_that_a_full_sync_met_before_its_loop_was_restarted_counts_as_unseen(synced: Linked) -> None:
    def lose_first() -> None:
        synced.integration.books.forget("t0")
        synced.integration.books.put(Movement("u0", "A", "1.00"))
        synced.integration.books.put(Movement("u1", "A", "1.00"))

    synced.integration.plan = Plan(page_size=2, mutate_before={3: lose_first})

    synced.sync(mode="full")

    assert sorted(synced.live()) == ["t1", "t2", "t3", "t4", "t5", "u0", "u1"]
