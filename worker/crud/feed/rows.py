"""Rows for the change feed, each as it is now.

Postgres writes whole items as JSON, many in one value: fetching columns and making objects of them takes several times
as long. The HTTP API passes the JSON on, and the Python iterator decodes it at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DataError
from sqlalchemy.orm import Session

from worker.models.feed import LOADED, STATES, Items, Kind, Noun
from worker.models.feed_cursor import CursorDamaged, Loading

_OF_SECURITY = {"symbol": "s.symbol", "name": "s.name", "security_type": "s.type"}
_LIVE = {Noun.TRANSACTIONS: "t.status <> 'removed'"}
_MOMENTS = {Noun.TRANSACTIONS: ("posted_date", "date"), Noun.BALANCES: ("taken_at", "timestamptz")}
"""The columns, with their types, by which an account's rows are read: there are indexes on account and these."""


def _source(noun: Noun, where: str) -> str:
    """A query for the columns that the feed shows."""
    with_security = noun in (Noun.HOLDINGS, Noun.TRANSACTIONS)
    columns = []
    for field in msgspec.structs.fields(STATES[noun]):
        column = f"t.{field.name}"
        if with_security:
            column = _OF_SECURITY.get(field.name, column)
        if "Decimal" in str(field.type):  # many readers would make a floating-point number of a number in JSON
            column += "::text"
        columns.append(f"{column} AS {field.name}")
    security = "LEFT JOIN securities s ON s.id = t.security_id" if with_security else ""
    live = _LIVE.get(noun, "true")
    return f"SELECT {', '.join(columns)} FROM {noun} t {security} WHERE {where} AND {live}"  # noqa: S608 - own names


def _item(noun: Noun, change: str, row: str) -> str:
    """An item of the feed as JSON. `change` is SQL; `row` is the alias of the row, and `k` has its id."""
    start = f"""'{{"noun":"{noun}","change":"' || {change} || '","id":"' || k.id"""
    return f"""{start} || '","row":' || coalesce(row_to_json({row})::text, 'null') || '}}'"""


def _loading(noun: Noun, where: str, *, moment: str = "") -> TextClause:
    """A query for the number of rows, their items, and moment and id of the last one."""
    order, last = (f"{moment}, id", f"k.{moment}::text") if moment else ("id", "''::text")
    item = _item(noun, f"'{Kind.ADDED}'", "k")
    # The order of the ids decides where the next slice begins; so it is not left to the order of the subquery.
    lasts = f"(array_agg({last} ORDER BY {order}))[count(*)], (array_agg(k.id ORDER BY {order}))[count(*)]"
    rows = f"{_source(noun, where)} ORDER BY {order} LIMIT :limit"
    return text(f"SELECT count(*), string_agg({item}, ','), {lasts} FROM ({rows}) AS k")  # noqa: S608 - own names


_OF_ALL = {noun: _loading(noun, "t.id > :after") for noun in LOADED}
_OF_ACCOUNT = {
    noun: _loading(
        noun,
        f"t.account_id = :account AND t.{column} >= CAST(:moment AS {kind})"
        f" AND (t.{column}, t.id) > (CAST(:moment AS {kind}), :after)",
        moment=column,
    )
    for noun, (column, kind) in _MOMENTS.items()
} | {noun: _loading(noun, "t.account_id = :account AND t.id > :after") for noun in (Noun.HOLDINGS, Noun.LIABILITIES)}
_OF_USER = _loading(
    Noun.ACCOUNTS, "t.id > :after AND t.provider_id IN (SELECT id FROM providers WHERE user_id = :user_id)"
)
_ACCOUNTS = text(
    "SELECT a.id FROM accounts a JOIN providers p ON p.id = a.provider_id"
    " WHERE p.user_id = :user_id AND a.id >= :first ORDER BY a.id LIMIT :limit"
)
_LOWEST = UUID(int=0)
_EARLIEST = "-infinity"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rows, their number, and where the next ones begin; None if these were the last of all."""

    items: list[Items]
    count: int
    following: Loading | None


def load(session: Session, at: Loading, *, user_id: UUID | None, limit: int) -> Loaded:
    """At most `limit` rows for a reader that gets all rows, in the order of their keys.

    Raises:
        CursorDamaged: somebody has made the cursor, with a value that is no day or time.
    """
    items: list[Items] = []
    count = 0
    following: Loading | None = at
    while following is not None and count < limit:
        if user_id is None or LOADED[following.noun] is Noun.ACCOUNTS:
            found = _by_key(session, following, user_id=user_id, limit=limit - count)
        else:
            found = _by_account(session, following, user_id=user_id, limit=limit - count)
        items += found.items
        count += found.count
        following = found.following
    return Loaded(items, count, following)


def _by_key(session: Session, at: Loading, *, user_id: UUID | None, limit: int) -> Loaded:
    noun = LOADED[at.noun]
    query = _OF_ALL[noun] if user_id is None else _OF_USER
    values = {"after": at.after[1] if at.after else _LOWEST, "limit": limit, "user_id": user_id}
    items, last = _run(session, query, noun, values)
    return Loaded([items], items.count, _next_noun(at) if items.count < limit else Loading(at.noun, None, last))


def _by_account(session: Session, at: Loading, *, user_id: UUID, limit: int) -> Loaded:
    noun = LOADED[at.noun]
    first = {"user_id": user_id, "first": at.account or _LOWEST, "limit": limit + 1}
    accounts = session.scalars(_ACCOUNTS, first).all()
    found: list[Items] = []
    count = 0
    for account in accounts:
        moment, after = at.after if at.after and account == at.account else (_EARLIEST, _LOWEST)
        room = limit - count
        values = {"account": account, "moment": moment, "after": after, "limit": room}
        try:
            items, last = _run(session, _OF_ACCOUNT[noun], noun, values)
        except DataError:
            raise CursorDamaged from None
        found.append(items)
        count += items.count
        if items.count == room:
            return Loaded(found, count, Loading(at.noun, account, last))
    if len(accounts) > limit:
        return Loaded(found, count, Loading(at.noun, accounts[-1]))
    return Loaded(found, count, _next_noun(at))


def _run(
    session: Session, query: TextClause, noun: Noun, values: dict[str, object]
) -> tuple[Items, tuple[str, UUID] | None]:
    count, json, moment, id_ = session.execute(query, values).one()
    return Items(noun, count, (json or "").encode()), (moment, id_) if count else None


def _next_noun(at: Loading) -> Loading | None:
    return Loading(at.noun + 1) if at.noun + 1 < len(LOADED) else None


class Part(NamedTuple):
    """Ids of one row of the log: those from `first` to `last`, counted from 1."""

    xid: int
    sequence: int
    first: int
    last: int


# Collected once for all securities: no index has the securities of transactions, so each one would read all of them.
_OF_USER_ACCOUNTS = "(SELECT a.id FROM accounts a JOIN providers p ON p.id = a.provider_id WHERE p.user_id = :user_id)"
_THEIRS = f"""
    k.id = ANY (ARRAY(
        SELECT security_id FROM holdings WHERE account_id IN {_OF_USER_ACCOUNTS}
        UNION SELECT security_id FROM transactions WHERE account_id IN {_OF_USER_ACCOUNTS} AND security_id IS NOT NULL
    ))
"""  # noqa: S608 - own names


def _owned(noun: Noun) -> str:
    """Whether a row is the user's. One that was may be in another user's account by now."""
    of_login = "SELECT FROM providers p WHERE p.id = {}.provider_id AND p.user_id = :user_id"
    if noun is Noun.ACCOUNTS:
        return f" AND EXISTS ({of_login.format('t')})"
    return f" AND EXISTS (SELECT FROM accounts a WHERE a.id = t.account_id AND EXISTS ({of_login.format('a')}))"


def _changed(noun: Noun, *, of_user: bool) -> TextClause:
    """A query for the number of rows of some parts of the log, and their items; a row in several parts is told once."""
    change = f"CASE WHEN r.id IS NULL THEN '{Kind.REMOVED}' WHEN k.change = '{Kind.ADDED}' THEN '{Kind.ADDED}'"
    change += f" ELSE '{Kind.MODIFIED}' END"
    # A security is never removed, and one that another user alone holds is nobody else's business.
    only = "true" if noun is not Noun.SECURITIES else f"r.id IS NOT NULL AND {_THEIRS if of_user else 'true'}"
    item = _item(noun, change, "r")
    own = _owned(noun) if of_user and noun is not Noun.SECURITIES else ""
    return text(
        f"""
        SELECT count(*), string_agg({item}, ',')
        FROM (
            SELECT DISTINCT ON (u.id) u.id, l.change
            FROM unnest(CAST(:xids AS bigint[]), CAST(:sequences AS bigint[]), CAST(:firsts AS int[]),
                CAST(:lasts AS int[])) AS w (xid, sequence, first, last)
            JOIN change_log l ON l.xid = w.xid AND l.sequence = w.sequence
            CROSS JOIN unnest(l.ids[w.first:w.last]) AS u (id)
            ORDER BY u.id, w.xid, w.sequence
        ) AS k LEFT JOIN LATERAL ({_source(noun, "t.id = k.id" + own)}) AS r ON true
        WHERE {only}
        """  # noqa: S608 - made of the constants above
    )


_CHANGED = {(noun, of_user): _changed(noun, of_user=of_user) for noun in Noun for of_user in (True, False)}


def changed(session: Session, noun: Noun, parts: Sequence[Part], *, user_id: UUID | None) -> Items:
    """What happened to the rows that some parts of the log list, each as it is now."""
    xids, sequences, firsts, lasts = (list(column) for column in zip(*parts, strict=True))
    values = {"xids": xids, "sequences": sequences, "firsts": firsts, "lasts": lasts, "user_id": user_id}
    count, json = session.execute(_CHANGED[noun, user_id is not None], values).one()
    return Items(noun, count, (json or "").encode())
