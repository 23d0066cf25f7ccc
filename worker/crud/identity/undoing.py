"""Undoes a merge or a split. What has come since then goes to the account whose login has listed it."""

from __future__ import annotations

import json
from uuid import UUID

from sqlalchemy import Text, cast, func, select, update
from sqlalchemy.orm import Session, defer

from worker.crud.identity.merging import join
from worker.crud.identity.records import Held, hold, tell
from worker.crud.identity.splitting import Saved, name_rows, take_out
from worker.crud.sync import sources
from worker.crud.sync.apply import driver
from worker.errors import NotFound, Refused
from worker.models import AccountChange
from worker.models.identity_rows import Done


def undo(session: Session, *, change_id: UUID, actor: str) -> Done:
    """Undoes a merge or a split.

    Raises:
        NotFound: there is no such change, or one of its accounts was removed.
        Refused: it is undone already, or the accounts were changed again since. Nothing was changed.
    """
    change = session.get(AccountChange, change_id, with_for_update=True, options=[defer(AccountChange.saved)])
    text = session.scalar(select(cast(AccountChange.saved, Text)).where(AccountChange.id == change_id))
    if change is None or text is None:
        raise NotFound("there is no such change; `dashtam accounts changes` lists them")
    if change.undone_at is not None:
        raise Refused(f"change {change.id} was undone already; nothing was changed")
    if change.kind == "merge":
        (held,) = hold(session, [change.account_id])
        saved = Saved.of(text)
        done = take_out(session, held, saved.source_id, actor=actor, saved=saved)
    else:
        gone, stays = hold(session, [change.other_id, change.account_id])
        done = join(session, gone, stays, actor=actor)
        kept: dict[str, bool] = json.loads(text)
        if kept["was_main"]:
            _state_again(session, gone, stays, heir_had_ended=kept["heir_had_ended"])
    session.execute(update(AccountChange).where(AccountChange.id == change.id).values(undone_at=func.clock_timestamp()))
    session.execute(update(AccountChange).where(AccountChange.id == done.id).values(undone_at=func.clock_timestamp()))
    tell(session, "accounts_undone", change, providers=_logins(session, change), actor=actor)
    return done


def _state_again(session: Session, gone: Held, stays: Held, *, heir_had_ended: bool) -> None:
    """The login that stated the account before it was split states it again."""
    connection = driver(session)
    before = sources.note_main(connection, stays.id)
    sources.make_main(connection, stays.id, gone.provider_id, gone.key)
    connection.execute("UPDATE accounts SET status = %s WHERE id = %s", (gone.status, stays.id))
    name_rows(connection, stays.id, sources.note_main(connection, stays.id))
    if heir_had_ended:
        sources.end(connection, [before])


def _logins(session: Session, change: AccountChange) -> list[UUID]:
    found = driver(session).execute(
        "SELECT provider_id FROM accounts WHERE id = ANY(%s)", ([change.account_id, change.other_id],)
    )
    return [row[0] for row in found]
