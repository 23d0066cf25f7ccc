"""A person says which accounts are the same: merges and splits them, and undoes it."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from worker.crud.database import OpenTransaction
from worker.crud.identity import merging, records, splitting, undoing
from worker.models.identity_rows import ChangeRow, Done
from worker.services.context import Context
from worker.services.fleet import lookup

Change = Callable[[OpenTransaction], Done]


async def merge(runtime: Context, first: str, into: str, *, actor: str, dry_run: bool) -> Done:
    """Merges the account that `first` names into the one that `into` names, by the beginnings of their ids.

    With `dry_run`, only says what it would do.

    Raises:
        BadArgument, NotFound: see `lookup.by_id`.
        Refused: they cannot be one account; nothing was changed.
    """
    file_keys = frozenset(key for key, one in runtime.integrations.items() if one.reads_files)

    def change(session: OpenTransaction) -> Done:
        named = {"from_id": _account(session, first), "into_id": _account(session, into)}
        return merging.merge(session, **named, actor=actor, file_keys=file_keys)

    return await _change(runtime, change, dry_run=dry_run)


async def split(runtime: Context, account: str, login: str | None, *, actor: str, dry_run: bool) -> Done:
    """Gives the login that came last, or the one that `login` names, an account of its own.

    With `dry_run`, only says what it would do.

    Raises:
        BadArgument, NotFound: see `lookup.by_id` and `lookup.provider`.
        Refused: there is nothing to split; nothing was changed.
    """

    def change(session: OpenTransaction) -> Done:
        provider_id = None if login is None else lookup.provider(session, login).id
        account_id = _account(session, account)
        return splitting.split(session, account_id=account_id, provider_id=provider_id, actor=actor)

    return await _change(runtime, change, dry_run=dry_run)


async def undo(runtime: Context, given: str, *, actor: str, dry_run: bool) -> Done:
    """Undoes a merge or a split, which is named by the beginning of its id.

    With `dry_run`, only says what it would do.

    Raises:
        BadArgument, NotFound: see `lookup.by_id`.
        Refused: it is undone already, or the accounts were changed again; nothing was changed.
    """

    def change(session: OpenTransaction) -> Done:
        return undoing.undo(session, change_id=_of_change(session, given), actor=actor)

    return await _change(runtime, change, dry_run=dry_run)


async def changes(runtime: Context, *, limit: int) -> list[ChangeRow]:
    """Merges and splits, newest first."""
    return await runtime.db(records.newest_changes, limit=limit)


def _account(session: OpenTransaction, given: str) -> UUID:
    return lookup.by_id(session, given, "account", "dashtam accounts", records.accounts_between).id


def _of_change(session: OpenTransaction, given: str) -> UUID:
    return lookup.by_id(session, given, "change", "dashtam accounts changes", records.changes_between).id


async def _change(runtime: Context, change: Change, *, dry_run: bool) -> Done:
    def run(session: OpenTransaction) -> Done:
        tried = session.begin_nested()
        done = change(session)
        if dry_run:
            tried.rollback()
        return done

    return await runtime.db(run)
