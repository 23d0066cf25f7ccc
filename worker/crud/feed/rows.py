"""Rows for the change feed, each as it is now. Postgres writes them as JSON, which is faster than values one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple
from uuid import UUID

import msgspec
from sqlalchemy import TextClause, text
from sqlalchemy.orm import Session

from worker.models.feed import LOADED, STATES, Kind, Noun, Told
from worker.models.feed_cursor import Loading

_OF_SECURITY = {"symbol": "s.symbol", "name": "s.name", "security_type": "s.type"}
_LIVE = {Noun.TRANSACTIONS: "t.status <> 'removed'"}
_MOMENTS = {Noun.TRANSACTIONS: ("posted_date", "date"), Noun.BALANCES: ("taken_at", "timestamptz")}
"""The columns, with their types, by which an account's rows are read: there are indexes on account and these."""


def _source(noun: Noun) -> str:
    """`SELECT … FROM …` of the columns that the feed shows."""
    with_security = noun in (Noun.HOLDINGS, Noun.TRANSACTIONS)
    columns = []
    for field in fields(STATES[noun]):
        column = f"t.{field.name}"
        if with_security:
            column = _OF_SECURITY.get(field.name, column)
        if "Decimal" in str(field.type):  # many readers would make a floating-point number of a number in JSON
            column += "::text"
        columns.append(f"{column} AS {field.name}")
    security = "LEFT JOIN securities s ON s.id = t.security_id" if with_security else ""
    return f"SELECT {', '.join(columns)} FROM {noun} t {security}"  # noqa: S608 - names of our own columns


def _query(noun: Noun, where: str, *, order: str = "", moment: str = "''") -> TextClause:
    live = _LIVE.get(noun, "true")
    limit = f"ORDER BY {order} LIMIT :limit" if order else ""
    rows = f"{_source(noun)} WHERE {where} AND {live} {limit}"
    return text(f"SELECT r.id, {moment}, row_to_json(r)::text FROM ({rows}) AS r")  # noqa: S608 - as above


_BY_ID = {noun: _query(noun, "t.id = ANY(:ids)") for noun in Noun}
_OF_ALL = {noun: _query(noun, "t.id > :after", order="t.id") for noun in LOADED}
_OF_ACCOUNT = {
    noun: _query(
        noun,
        f"t.account_id = :account AND t.{column} >= CAST(:moment AS {kind})"
        f" AND (t.{column}, t.id) > (CAST(:moment AS {kind}), :after)",
        order=f"t.{column}, t.id",
        moment=f"r.{column}::text",
    )
    for noun, (column, kind) in _MOMENTS.items()
} | {Noun.HOLDINGS: _query(Noun.HOLDINGS, "t.account_id = :account AND t.id > :after", order="t.id")}
_OF_USER = _query(
    Noun.ACCOUNTS,
    "t.id > :after AND t.provider_id IN (SELECT id FROM providers WHERE user_id = :user_id)",
    order="t.id",
)
_ACCOUNTS = text(
    "SELECT a.id FROM accounts a JOIN providers p ON p.id = a.provider_id"
    " WHERE p.user_id = :user_id AND a.id >= :first ORDER BY a.id LIMIT :limit"
)
_NOT_OTHERS = text(
    """
    SELECT s.id FROM securities s WHERE s.id = ANY(:ids) AND EXISTS (
        SELECT FROM providers p JOIN accounts a ON a.provider_id = p.id WHERE p.user_id = :user_id AND (
            EXISTS (SELECT FROM holdings h WHERE h.account_id = a.id AND h.security_id = s.id)
            OR EXISTS (SELECT FROM transactions t WHERE t.account_id = a.id AND t.security_id = s.id)
        )
    )
    """
)
_LOWEST = UUID(int=0)
_EARLIEST = "-infinity"


def by_id(session: Session, noun: Noun, ids: Sequence[UUID]) -> dict[UUID, msgspec.Raw]:
    """The rows that are there. Transactions that the provider has withdrawn are not."""
    if not ids:
        return {}
    return {id_: msgspec.Raw(row.encode()) for id_, _, row in session.execute(_BY_ID[noun], {"ids": ids})}


def held(session: Session, ids: Sequence[UUID], *, user_id: UUID) -> set[UUID]:
    """Those of the securities that positions or transactions of the user name."""
    return set(session.scalars(_NOT_OTHERS, {"ids": ids, "user_id": user_id}))


class Loaded(NamedTuple):
    """Rows of one noun, and where the next ones begin; None if these were the last of all."""

    told: list[Told]
    following: Loading | None


def load(session: Session, at: Loading, *, user_id: UUID | None, limit: int) -> Loaded:
    """At most `limit` rows for a reader that gets all rows, in the order of their keys."""
    told: list[Told] = []
    following: Loading | None = at
    while following is not None and len(told) < limit:
        noun, room = LOADED[following.noun], limit - len(told)
        if user_id is None or noun is Noun.ACCOUNTS:
            found, following = _by_key(session, following, user_id=user_id, limit=room)
        else:
            found, following = _by_account(session, following, user_id=user_id, limit=room)
        told += found
    return Loaded(told, following)


def _by_key(session: Session, at: Loading, *, user_id: UUID | None, limit: int) -> Loaded:
    noun = LOADED[at.noun]
    query = _OF_ALL[noun] if user_id is None else _OF_USER
    after = at.after[1] if at.after else _LOWEST
    told, last = _told(session, query, noun, {"after": after, "limit": limit, "user_id": user_id})
    return Loaded(told, _next_noun(at) if len(told) < limit or last is None else Loading(at.noun, None, last))


def _by_account(session: Session, at: Loading, *, user_id: UUID, limit: int) -> Loaded:
    noun = LOADED[at.noun]
    first = {"user_id": user_id, "first": at.account or _LOWEST, "limit": limit + 1}
    told: list[Told] = []
    accounts = session.scalars(_ACCOUNTS, first).all()
    for account in accounts:
        moment, after = at.after if at.after and account == at.account else (_EARLIEST, _LOWEST)
        room = limit - len(told)
        more = {"account": account, "moment": moment, "after": after, "limit": room}
        found, last = _told(session, _OF_ACCOUNT[noun], noun, more)
        told += found
        if len(found) == room:
            return Loaded(told, Loading(at.noun, account, last))
    if len(accounts) > limit:
        return Loaded(told, Loading(at.noun, accounts[-1]))
    return Loaded(told, _next_noun(at))


def _told(
    session: Session, query: TextClause, noun: Noun, values: dict[str, object]
) -> tuple[list[Told], tuple[str, UUID] | None]:
    rows = session.execute(query, values).all()
    told = [Told(noun, Kind.ADDED, id_, msgspec.Raw(row.encode())) for id_, _, row in rows]
    return told, (rows[-1][1], rows[-1][0]) if rows else None


def _next_noun(at: Loading) -> Loading | None:
    return Loading(at.noun + 1) if at.noun + 1 < len(LOADED) else None
