from __future__ import annotations

from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest

from worker.errors import BadArgument, NotFound
from worker.services.fleet import lookup, past
from worker.services.fleet.lookup import id_range


def test_the_beginning_of_an_id_is_a_range_of_ids() -> None:
    first, last = id_range("0198c2")

    assert first == UUID("0198c200-0000-0000-0000-000000000000")
    assert last == UUID("0198c2ff-ffff-ffff-ffff-ffffffffffff")


def test_a_whole_id_is_a_range_of_one() -> None:
    text = "0198c2f4-1234-7abc-8def-0123456789ab"

    assert id_range(text) == (UUID(text), UUID(text))


@pytest.mark.parametrize("text", ["019", "Schwab one", "0198zz", "--", "0" * 37, ""])
def test_what_begins_no_id_is_no_range(text: str) -> None:
    assert id_range(text) == (None, None)


@pytest.mark.parametrize("text", ["'; DROP TABLE providers", "x -- y", "a\x00b", "a\nb", "", "x" * 101])
def test_what_cannot_be_an_id_or_alias_never_reaches_the_database(text: str) -> None:
    session = Mock()

    with pytest.raises(BadArgument):
        lookup.provider(session, text)

    assert not session.mock_calls


def test_an_unknown_provider_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup.overview, "find_providers", lambda *_, **__: [])

    with pytest.raises(BadArgument, match="no provider has the id or alias 'Nowhere'"):
        lookup.provider(Mock(), "Nowhere")


def test_an_alias_of_two_providers_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [Mock(id=UUID(int=1)), Mock(id=UUID(int=2))]
    monkeypatch.setattr(lookup.overview, "find_providers", lambda *_, **__: rows)

    with pytest.raises(BadArgument, match="more than one") as caught:
        lookup.provider(Mock(), "Home")

    assert str(rows[0].id) in str(caught.value)
    assert str(rows[1].id) in str(caught.value)


@pytest.mark.parametrize("find", [past.run, past.failure, past.entry])
def test_what_begins_no_id_never_reaches_the_database(find: Any) -> None:
    session = Mock()

    with pytest.raises(BadArgument, match="not the beginning of one; `dashtam "):
        find(session, "x'; --")

    assert not session.mock_calls


def test_the_beginning_of_a_runs_id_must_mean_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [Mock(id=UUID(int=1)), Mock(id=UUID(int=2))]
    monkeypatch.setattr(past.history, "runs_between", lambda *_, **__: rows)

    with pytest.raises(BadArgument, match="more than one run") as caught:
        past.run(Mock(), "0000")

    assert str(rows[1].id) in str(caught.value)
    rows[1:] = []
    assert past.run(Mock(), "0000") is rows[0]
    rows.clear()
    with pytest.raises(NotFound, match="begins with 0000"):
        past.run(Mock(), "0000")
