"""Positions in the order of changes: what a snapshot has seen, and what is no position."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import BadArgument
from worker.models.changes import Position

AT = datetime(2025, 3, 14, 15, 0, 0, 250_000, tzinfo=UTC)


def test_snapshot_has_seen_what_had_ended_and_nothing_else() -> None:
    position = Position.of(AT, "100:105:101,103")

    assert [number for number in range(98, 108) if position.has_seen(number)] == [98, 99, 100, 102, 104]


def test_snapshot_without_running_transactions() -> None:
    position = Position.of(AT, "105:105:")

    assert (position.has_seen(104), position.has_seen(105)) == (True, False)


@pytest.mark.parametrize("snapshot", ["105:105:", "100:105:100", "100:105:101,103", f"1:{2**63 - 1}:"])
def test_position_is_read_as_it_was_written(snapshot: str) -> None:
    position = Position.of(AT, snapshot)

    assert Position.read(str(position)) == position
    assert position.snapshot == snapshot


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "1-100:105",
        "1-100:99:",
        "1-100:105:106",
        "1-100:105:103,101",
        "1-100:105:101,101",
        "1-100:105:101,",
        "1-100:105:99",
        "-1-100:105:",
        "1-100:105:\n",
        "1-\u0661:105:",
        "1-1:2:" + ",".join("1" * 5000),
        "1" * 20 + "-1:2:",
    ],
)
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(BadArgument, match="Last-Event-ID"):
        Position.read(text)


@given(st.text(max_size=60) | st.from_regex(r"\d{1,14}-\d{1,4}:\d{1,4}:(\d{1,4},)*\d{0,4}", fullmatch=True))
def test_any_text_is_a_position_or_refused(text: str) -> None:
    try:
        position = Position.read(text)
    except BadArgument:
        return
    assert Position.read(str(position)) == position
    assert not position.has_seen(position.next_number)
