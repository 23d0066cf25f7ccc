"""A cursor after which something could be missed is refused, each with its own error; every other one goes on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from sqlalchemy import text

from tests.integration.feed.conftest import Person, World
from tests.support.feed_copy import Copy
from worker.crud.feed import log, positions
from worker.errors import BadArgument, NotPermitted
from worker.models.feed_cursor import Cursor, CursorAhead, CursorElsewhere, CursorExpired, CursorRestored, Loading
from worker.services import feed, upkeep


@pytest.fixture
def cursor(world: World, ada: Person) -> str:
    """The cursor of a reader that has read everything."""
    world.read()
    assert world.copy.cursor is not None
    return world.copy.cursor


def _read(world: World, cursor: str, **options: object) -> None:
    world.read(copy=Copy(cursor), **options)  # type: ignore[arg-type]


def _with(cursor: str, **values: object) -> str:
    return str(msgspec.structs.replace(Cursor.parse(cursor), **values))


def test_damaged_cursor_is_refused(world: World, cursor: str) -> None:
    changed = cursor[:20] + ("A" if cursor[20] != "A" else "B") + cursor[21:]
    damaged = ["", " ", "x", "null", "ü", cursor[:-1], cursor[1:], cursor + "AAAA", cursor * 2, changed, "A" * 600]

    for given in damaged:
        with pytest.raises(BadArgument, match="not a cursor of the change feed"):
            _read(world, given)


@pytest.mark.parametrize("moment", ["rubbish", "2026-13-77", "2026-01-05\0"])
def test_cursor_that_somebody_made_with_a_value_that_is_no_time_is_refused(
    world: World, ada: Person, moment: str
) -> None:
    first = world.runtime.run(feed.page(world.runtime, user_id=ada.user_id, cursor=None, limit=2)).cursor

    for noun in (1, 3):
        made = _with(first, loading=Loading(noun, ada.ids["accounts"], (moment, ada.ids["accounts"])))
        with pytest.raises(BadArgument, match="not a cursor"):
            _read(world, made, user_id=ada.user_id)


def test_cursor_of_another_user_is_refused(world: World, ada: Person, bob: Person, cursor: str) -> None:
    hers = Copy()
    world.read(copy=hers, user_id=ada.user_id)
    assert hers.cursor

    for given, user_id in ((hers.cursor, bob.user_id), (hers.cursor, None), (cursor, ada.user_id)):
        with pytest.raises(NotPermitted, match="another user's rows"):
            _read(world, given, user_id=user_id)


@pytest.mark.deep
def test_cursor_of_another_database_is_refused(world: World, cursor: str) -> None:
    with pytest.raises(CursorElsewhere, match="given by another database"):
        _read(world, _with(cursor, origin=uuid4()))


@pytest.mark.deep
def test_cursor_of_a_copy_of_this_database_is_refused(world: World, cursor: str) -> None:
    with pytest.raises(CursorRestored, match="before this database was restored"):
        _read(world, _with(cursor, place=b"elsewher"))


@pytest.mark.deep
def test_cursor_of_the_future_is_refused(world: World, cursor: str) -> None:
    with pytest.raises(CursorAhead, match="ahead of this database"):
        _read(world, _with(cursor, xid=2**62))


def test_cursor_whose_reading_this_database_has_lost_is_refused(world: World, cursor: str) -> None:
    world.execute("DELETE FROM change_reads WHERE id = :id", id=Cursor.parse(cursor).read)

    with pytest.raises(CursorRestored, match="went back to an earlier state"):
        _read(world, cursor)


@pytest.mark.deep
@pytest.mark.parametrize("table", ["transactions CASCADE", "change_log", "accounts CASCADE"])
def test_cursor_of_before_a_truncate_is_refused(world: World, cursor: str, table: str) -> None:
    world.execute(f"TRUNCATE {table}")

    with pytest.raises(CursorRestored, match="restored from a dump or emptied"):
        _read(world, cursor)
    world.copy = Copy()
    world.read()
    assert world.differences() == {}


def test_cursor_that_is_older_than_the_log_is_refused_and_says_so(world: World, ada: Person, cursor: str) -> None:
    days = world.runtime.settings.retain_changes_days
    world.execute("UPDATE transactions SET fees = 1 WHERE status <> 'removed'")
    now = datetime.now(UTC) + timedelta(days=days + 2)

    removed = world.runtime.run(upkeep.retain(world.runtime, now))

    assert removed["change_log"] > 0
    assert removed["change_reads"] > 0
    with pytest.raises(CursorExpired, match=r"too old.*without a cursor"):
        _read(world, cursor)


@pytest.mark.deep
def test_log_is_kept_for_a_day_longer_than_cursors_are_good(world: World, cursor: str) -> None:
    days = world.runtime.settings.retain_changes_days
    now = datetime.now(UTC) + timedelta(days=days, hours=23)

    assert world.runtime.run(upkeep.retain(world.runtime, now))["change_log"] == 0

    _read(world, cursor)


@pytest.mark.deep
def test_cursor_in_the_middle_of_old_changes_expires_with_them(world: World, ada: Person, cursor: str) -> None:
    world.execute("UPDATE transactions SET fees = 1 WHERE status <> 'removed'")
    world.execute("UPDATE change_log SET at = at - interval '40 days'")
    world.execute("UPDATE balances SET current = 1")

    async def one() -> str:
        return (await feed.page(world.runtime, user_id=None, cursor=cursor, limit=1)).cursor

    within = world.runtime.run(one())
    assert world.runtime.run(upkeep.retain(world.runtime, datetime.now(UTC)))["change_log"] > 0

    with pytest.raises(CursorExpired):
        _read(world, within)


@pytest.mark.deep
def test_quiet_reader_gets_a_newer_cursor_each_hour(world: World, cursor: str) -> None:
    old = _with(cursor, at=Cursor.parse(cursor).at - 4000)
    copy = Copy(old)

    assert world.told(copy=copy) == []

    assert copy.cursor is not None
    assert Cursor.parse(copy.cursor).at > Cursor.parse(old).at + 3600


@pytest.mark.deep
def test_cursor_of_a_run_tells_what_was_changed_since_it_began(world: World, ada: Person) -> None:
    begun = datetime.now(UTC)
    world.execute("UPDATE balances SET current = 5")
    with world.runtime.transaction() as session:
        session.execute(text("UPDATE holdings SET price = 5"))
        give = positions.cursors_before(session, since=begun, user_id=ada.user_id)
        hers, all_ = Copy(give(ada.user_id)), Copy(give(None))
    world.execute("UPDATE accounts SET name = 'later'")

    told = world.told(copy=hers, user_id=ada.user_id)

    assert {"balances", "holdings", "accounts"} <= {noun for noun, _, _ in told}
    assert set(told) <= set(world.told(copy=all_))


@pytest.mark.deep
def test_lost_identity_of_the_log_makes_a_new_one(world: World, cursor: str) -> None:
    world.execute("DELETE FROM change_origin")

    with pytest.raises(CursorElsewhere):
        _read(world, cursor)


@pytest.mark.deep
def test_part_of_the_log_that_upkeep_deletes_while_it_is_read_is_noticed(
    world: World, ada: Person, cursor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.execute("UPDATE transactions SET fees = 1 WHERE status <> 'removed'")
    world.execute("UPDATE balances SET current = 1")
    check = positions.check

    def check_and_lose(given: Cursor, now: positions.Here, **more: Any) -> None:
        check(given, now, **more)
        with world.runtime.transaction() as other:
            later = datetime.now(UTC) + timedelta(days=2)
            assert log.remove_old(other, table="change_log", before=later, limit=1) == 1

    monkeypatch.setattr(positions, "check", check_and_lose)

    with pytest.raises(CursorExpired):
        _read(world, cursor)
