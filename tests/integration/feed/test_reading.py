"""The change feed tells a reader every change of every row, whoever made it, and in whatever order it was committed."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import text

from tests.factories import make_account, make_transaction
from tests.integration.feed.conftest import Person, World, make_security, populate
from tests.support.feed_copy import Copy
from worker.crud import upkeep
from worker.crud.feed import rows
from worker.errors import BadArgument
from worker.models import Account, Provider, User
from worker.models.feed import LOADED, Kind, Noun
from worker.services import feed

OTHERWISE = {
    "text": "'other'",
    "character varying": "'other'",
    "boolean": "coalesce({}, false) IS FALSE",
    "jsonb": "'{{\"other\": 1}}'",
    "numeric": "coalesce({}, 0) + 1",
    "date": "coalesce({}, CURRENT_DATE) + 1",
    "timestamp with time zone": "coalesce({}, now()) + interval '1 day'",
}
"""Another value for a column of each type."""
NOT_SHOWN = {
    "content_hash",
    "run_id",
    "loop_id",
    "flags",
    "pending_key",
    "provider_type",
    "provider_subtype",
    "created_at",
}
NOT_SHOWN |= {"opening", "opening_from", "opening_quantity", "provider_transaction_id", "provider_account_id"}
NOT_SHOWN |= {"institution", "stable_keys", "provider_ref", "holding_key", "liability_key", "source", "key"}


def test_reader_without_a_cursor_gets_all_rows_and_then_what_changes(world: World, ada: Person) -> None:
    first = world.read(limit=3)

    assert {noun: len(world.copy.rows[noun]) for noun in LOADED} == {
        "accounts": 1,
        "balances": 2,
        "holdings": 2,
        "liabilities": 1,
        "transactions": 3,
    }
    assert {change.change for change in first} == {Kind.ADDED}
    assert world.differences() == {}
    before = world.copy.cursor
    assert world.told() == []
    assert world.copy.cursor == before

    world.execute("UPDATE transactions SET description = 'other' WHERE id = :id", id=ada.ids["transactions"])

    assert world.told() == [("transactions", "modified", ada.ids["transactions"])]
    assert world.differences() == {}


@pytest.mark.deep
def test_reader_waits_for_a_transaction_that_began_earlier_and_skips_nothing(world: World, ada: Person) -> None:
    world.read()
    with world.open() as slow:
        slow.execute(text("UPDATE accounts SET name = 'slow' WHERE id = :id"), {"id": ada.ids["accounts"]})
        world.execute("UPDATE balances SET current = 7 WHERE id = :id", id=ada.ids["balances"])
        assert world.told() == []

        slow.commit()

    assert world.told() == [
        ("accounts", "modified", ada.ids["accounts"]),
        ("balances", "modified", ada.ids["balances"]),
    ]
    assert world.differences() == {}


@pytest.mark.deep
def test_what_was_rolled_back_is_not_told(world: World, ada: Person) -> None:
    world.read()
    with world.open() as connection:
        connection.execute(text("DELETE FROM transactions"))
        connection.rollback()

    assert world.told() == []


@pytest.mark.deep
def test_change_in_a_savepoint_is_told_with_its_transaction(world: World, ada: Person) -> None:
    world.read()
    with world.open() as connection:
        with connection.begin_nested():
            connection.execute(text("UPDATE transactions SET fees = 1 WHERE status <> 'removed'"))
        connection.commit()

    assert [change for _, change, _ in world.told()] == ["modified"] * 3
    assert world.differences() == {}


@pytest.mark.deep
def test_statement_that_changes_nothing_that_is_shown_is_not_logged(world: World, ada: Person) -> None:
    world.execute("DELETE FROM change_log")

    world.execute("UPDATE accounts SET name = name, run_id = gen_random_uuid(), opening = 1")
    world.execute("UPDATE transactions SET content_hash = 'y', run_id = gen_random_uuid()")
    world.execute("DELETE FROM balances WHERE false")
    world.execute("UPDATE securities SET content_hash = 'z'")

    assert world.logged() == []


@pytest.mark.deep
def test_each_column_is_told_or_is_known_not_to_be_shown(world: World, ada: Person) -> None:
    with world.runtime.transaction() as session:
        other = make_account(session, provider=session.get_one(Provider, ada.ids["providers"])).id
        security = make_security(session).id
        query = (
            "SELECT table_name, column_name, data_type FROM information_schema.columns"
            " WHERE table_schema = 'public' AND table_name = ANY(:nouns) ORDER BY 1, ordinal_position"
        )
        columns = session.execute(text(query), {"nouns": list(Noun)}).all()
        session.execute(text("DELETE FROM change_log"))
    silent = set()
    for table, column, kind in columns:
        to: dict[str, Any] = {"account_id": other, "security_id": security}
        if column in ("id", *NOT_SHOWN) or (table, column) == ("accounts", "provider_id"):
            continue
        value = f"'{to[column]}'" if column in to else OTHERWISE[kind].format(column)
        with world.open() as connection:  # each change alone, and undone
            statement = f"UPDATE {table} SET {column} = {value} WHERE id = :id"  # noqa: S608
            connection.execute(text(statement), {"id": ada.ids[table]})
            logged = "SELECT count(*) FROM change_log WHERE :id = ANY(ids)"
            if connection.scalar(text(logged), {"id": ada.ids[table]}) == 0:
                silent.add((table, column))

    assert silent == set()


@pytest.mark.deep
@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_slices_of_any_size_tell_everything_once(world: World, ada: Person, limit: int) -> None:
    other = Copy()
    world.read()
    with world.runtime.transaction() as session:
        account = session.get_one(Account, ada.ids["accounts"])
        for _ in range(10):
            make_transaction(session, account=account)
    world.execute("UPDATE transactions SET fees = 2")

    told = world.told(limit=limit)

    assert len(told) >= 13
    assert world.differences() == {}
    world.read(limit=limit, copy=other)
    assert world.differences(other) == {}


@pytest.mark.deep
def test_rows_that_change_while_a_reader_reads_all_are_told(world: World, ada: Person, bob: Person) -> None:
    async def read() -> None:
        steps = iter(
            [
                "UPDATE transactions SET posted_date = posted_date - 1000",
                "DELETE FROM balances WHERE id = (SELECT min(id::text)::uuid FROM balances)",
                "UPDATE accounts SET name = 'later'",
                "UPDATE transactions SET status = 'removed' WHERE posted_date < '2023-04-13'",
                "UPDATE transactions SET status = 'posted'",
            ]
        )
        async for found in feed.changes(world.runtime, limit=2):
            world.copy.apply(found.items)
            world.copy.cursor = found.cursor
            if statement := next(steps, None):
                world.execute(statement)

    world.runtime.run(read())
    world.read()

    assert world.differences() == {}


@pytest.mark.deep
@pytest.mark.parametrize(
    "table", ["users", "providers", "accounts", "holdings", "liabilities", "balances", "transactions"]
)
def test_rows_that_go_with_what_they_belong_to_are_told_as_removed(
    world: World, ada: Person, bob: Person, table: str
) -> None:
    hers = Copy()
    world.read()
    world.read(copy=hers, user_id=ada.user_id)

    world.execute(f"DELETE FROM {table} WHERE id = :id", id=ada.ids[table])  # noqa: S608

    told = world.told()
    assert told
    assert {change for _, change, _ in told} == {"removed"}
    assert world.differences() == {}
    assert sorted(world.told(copy=hers, user_id=ada.user_id)) == sorted(told)
    assert world.differences(hers, user_id=ada.user_id) == {}


@pytest.mark.deep
def test_withdrawn_transaction_is_told_as_removed_and_may_come_back(world: World, ada: Person) -> None:
    world.read()
    id_ = ada.ids["transactions"]

    world.execute("UPDATE transactions SET status = 'removed' WHERE id = :id", id=id_)
    assert world.told() == [("transactions", "removed", id_)]

    world.execute("UPDATE transactions SET status = 'posted' WHERE id = :id", id=id_)
    assert world.told() == [("transactions", "modified", id_)]
    assert world.differences() == {}


@pytest.mark.deep
def test_old_balances_that_upkeep_deletes_are_told_as_removed(world: World, ada: Person) -> None:
    world.read()
    with world.runtime.transaction() as session:
        before = session.execute(text("SELECT max(taken_at) FROM balances")).scalar_one()
        assert upkeep.remove_old(session, table="balances", before=before, limit=10) == 1

    assert world.told() == [("balances", "removed", ada.ids["balances"])]


@pytest.mark.deep
def test_users_are_told_of_their_own_rows_alone(world: World, ada: Person, bob: Person) -> None:
    hers = Copy()
    world.read(copy=hers, user_id=ada.user_id, limit=1)
    assert world.differences(hers, user_id=ada.user_id) == {}

    world.execute("UPDATE transactions SET fees = 1 WHERE status <> 'removed'")
    told = world.told(copy=hers, user_id=ada.user_id)

    assert len(told) == 3
    assert world.differences(hers, user_id=ada.user_id) == {}


@pytest.mark.deep
def test_renamed_security_is_told_to_those_who_have_it(world: World, ada: Person, bob: Person) -> None:
    hers, his = Copy(), Copy()
    world.read()
    world.read(copy=hers, user_id=ada.user_id)
    world.read(copy=his, user_id=bob.user_id)
    security = ada.ids["securities"]
    world.execute("UPDATE transactions SET security_id = :s WHERE id = :id", s=security, id=ada.ids["transactions"])

    world.execute("UPDATE securities SET symbol = 'META', name = 'Other' WHERE id = :id", id=security)

    assert ("securities", "modified", security) in world.told()
    assert ("securities", "modified", security) in world.told(copy=hers, user_id=ada.user_id)
    assert world.told(copy=his, user_id=bob.user_id) == []
    assert world.differences() == {}
    assert world.differences(hers, user_id=ada.user_id) == {}


@pytest.mark.deep
def test_renamed_securities_do_not_read_all_transactions_once_for_each(world: World, ada: Person) -> None:
    with world.runtime.transaction() as session:
        securities = [make_security(session, symbol=f"S{number}").id for number in range(50)]
        own = "'id', gen_random_uuid(), 'provider_transaction_id', gen_random_uuid(), 'security_id', CAST(:s AS uuid)"
        copies = (
            f"INSERT INTO transactions SELECT (jsonb_populate_record(t, jsonb_build_object({own}))).*"  # noqa: S608
            " FROM transactions t, generate_series(1, 3000) WHERE t.id = :id"
        )
        session.execute(text(copies), {"id": ada.ids["transactions"], "s": ada.ids["securities"]})
        session.execute(text("ANALYZE transactions"))
    query = str(rows._CHANGED[Noun.SECURITIES, True])
    world.execute("DELETE FROM change_log")
    world.execute("UPDATE securities SET name = 'Other' WHERE id = ANY (:ids)", ids=securities)

    with world.runtime.transaction() as session:
        ((xid, sequence),) = session.execute(text("SELECT xid, sequence FROM change_log")).all()
        part = {"xids": [xid], "sequences": [sequence], "firsts": [1], "lasts": [50], "user_id": ada.user_id}
        plan = session.execute(text(f"EXPLAIN (ANALYZE, FORMAT JSON) {query}"), part).scalar_one()

    def loops(node: dict[str, Any]) -> int:
        below = sum(map(loops, node.get("Plans", ())))
        return below + (node["Actual Loops"] if node.get("Relation Name") == "transactions" else 0)

    assert 0 < loops(plan[0]["Plan"]) < len(securities)


def test_triggers_do_not_join_old_and_new_rows(world: World) -> None:
    """In a sync, hash joins are switched off, so such a join takes a time that grows with the square of the rows."""
    with world.runtime.transaction() as session:
        query = text("SELECT prosrc FROM pg_proc WHERE proname LIKE 'change\\_log\\_%'")
        bodies = session.execute(query).scalars().all()

    both = [body for body in bodies if "new_rows" in body and "old_rows" in body]
    assert len(both) == len(Noun)
    assert [body for body in both if re.search(r"\b(JOIN|,)\s+(old|new)_rows\b", body)] == []


@pytest.mark.deep
def test_long_page_is_logged_in_rows_of_a_thousand(world: World, ada: Person) -> None:
    world.execute("DELETE FROM change_log")

    world.execute(
        "INSERT INTO transactions (id, account_id, provider_transaction_id, type, status, amount, currency,"
        " posted_date, content_hash) SELECT gen_random_uuid(), :id, 'many-' || i, 'payment', 'posted', 1, 'USD',"
        " DATE '2026-01-05', '' FROM generate_series(1, 2500) i",
        id=ada.ids["accounts"],
    )

    logged = world.logged()
    assert {row[:2] for row in logged} == {("transactions", "added")}
    assert sum(row[2] for row in logged) == 2500
    assert max(row[2] for row in logged) == 1000


def test_limit_that_is_not_positive_is_refused(world: World) -> None:
    for limit in (0, -1):
        with pytest.raises(BadArgument, match="must be 1 or more"):
            world.read(limit=limit)


@pytest.mark.deep
def test_database_without_rows_has_a_cursor(world: World) -> None:
    assert world.told() == []
    person = populate(world)

    assert ("accounts", "added", person.ids["accounts"]) in world.told()
    with world.runtime.transaction() as session:
        assert session.get_one(User, person.user_id)


@pytest.mark.deep
def test_row_that_moves_to_another_user_is_removed_for_the_one_and_added_for_the_other(
    world: World, ada: Person, bob: Person
) -> None:
    hers, his = Copy(), Copy()
    world.read(copy=hers, user_id=ada.user_id)
    world.read(copy=his, user_id=bob.user_id)
    id_ = ada.ids["transactions"]

    world.execute("UPDATE transactions SET account_id = :to WHERE id = :id", to=bob.ids["accounts"], id=id_)

    assert world.told(copy=hers, user_id=ada.user_id) == [("transactions", "removed", id_)]
    assert world.told(copy=his, user_id=bob.user_id) == [("transactions", "modified", id_)]
    assert world.differences(his, user_id=bob.user_id) == {}


@pytest.mark.deep
@pytest.mark.parametrize("limit", [1, 2])
def test_securities_of_others_do_not_hold_up_a_reader(world: World, ada: Person, bob: Person, limit: int) -> None:
    hers = Copy()
    world.read(copy=hers, user_id=ada.user_id)
    for number in range(3):
        world.execute("UPDATE securities SET symbol = :s WHERE id = :id", s=f"S{number}", id=bob.ids["securities"])
    world.execute("UPDATE accounts SET name = 'later' WHERE id = :id", id=ada.ids["accounts"])

    assert world.told(copy=hers, user_id=ada.user_id, limit=limit) == [("accounts", "modified", ada.ids["accounts"])]
    assert world.differences(hers, user_id=ada.user_id) == {}
