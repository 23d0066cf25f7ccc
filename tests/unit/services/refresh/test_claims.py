from __future__ import annotations

from uuid import UUID

import pytest

from worker.services.refresh.claims import spread


def _ids(count: int) -> list[UUID]:
    return [UUID(int=number) for number in range(count)]


def test_nothing_due_sends_nothing() -> None:
    assert [batch for batch in spread([], tick_s=15, batch_size=100) if batch.ids] == []


def test_few_providers_go_at_once_in_one_message() -> None:
    (batch,) = spread(_ids(4), tick_s=15, batch_size=100)

    assert (batch.after_s, batch.ids) == (0, _ids(4))


@pytest.mark.deep
@pytest.mark.parametrize("count", [11, 150, 1190, 5000])
def test_many_providers_are_spread_over_the_tick_earliest_first(count: int) -> None:
    batches = spread(_ids(count), tick_s=15, batch_size=250)

    assert [id_ for batch in batches for id_ in batch.ids] == _ids(count)
    assert [batch.after_s for batch in batches] == sorted(batch.after_s for batch in batches)
    assert all(0 <= batch.after_s < 15 for batch in batches)
    assert all(0 < len(batch.ids) <= 250 for batch in batches)
    seconds = {int(batch.after_s): 0 for batch in batches}
    for batch in batches:
        seconds[int(batch.after_s)] += len(batch.ids)
    assert max(seconds.values()) <= max(10, count / 15 + 1)


def test_tick_shorter_than_a_second_spreads_nothing() -> None:
    batches = spread(_ids(300), tick_s=0.5, batch_size=100)

    assert [(batch.after_s, len(batch.ids)) for batch in batches] == [(0, 100), (0, 100), (0, 100)]
