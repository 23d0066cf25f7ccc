"""A person hands over a file of a bank on the pages of a link session."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from uuid import UUID

from worker.crud import link_sessions, logins
from worker.crud.database import OpenTransaction
from worker.errors import NotFound, Refused, Taken
from worker.models.link_session import LinkSessionRow
from worker.models.vocabulary import LinkSessionState, RunStatus
from worker.services.context import Context
from worker.services.linking import claims, sessions
from worker.services.linking.begin import hashed
from worker.services.linking.sessions import Held
from worker.services.sync import importing


async def upload(
    runtime: Context,
    session_id: UUID,
    held: Held,
    provider_key: str,
    content: bytes,
    *,
    alias: str,
    options: Mapping[str, str],
) -> LinkSessionRow:
    """Imports a file into the login of the session, or into the one of this name, and ends the session.

    Args:
        runtime: the process's context.
        session_id: the session.
        held: the browser's secrets.
        provider_key: the integration that the person sees on the page.
        content: the whole file.
        alias: the name of the login, if the session does not say it.
        options: what the columns of a CSV file mean.

    Raises:
        NotFound: there is no such session, or this integration takes no files.
        Taken: the user has a login of this name at an institution.
        Refused: the file cannot be read, or the session has ended. Nothing was stored.
    """
    row = await sessions.look(runtime, session_id, held)
    if not sessions.offered(runtime, row, provider_key).reads_files:
        raise NotFound("this institution takes no files")

    def begin(session: OpenTransaction) -> str:
        if row.provider_id is not None:
            name = logins.get(session, provider_id=row.provider_id).alias
        else:
            name = (row.alias or alias).strip()
            if any(
                one.provider_key != provider_key for one in logins.by_alias(session, user_id=row.user_id, alias=name)
            ):
                raise Taken(claims.TAKEN)
        if not link_sessions.bind(session, session_id=row.id, browser_hash=hashed(held.browser)):
            raise Refused("this link session has ended or has expired; nothing was stored")
        claims.take(session, row.id, seconds=runtime.settings.lease_seconds)
        return name

    name = await runtime.db(begin)
    async with claims.released(runtime, row.id):
        done = await importing.import_file(runtime, content, user_id=row.user_id, alias=name, options=options)
        if done.run is None or done.run.status == RunStatus.FAILED:
            raise Refused("the file was not stored as a whole; give it again")
        linked_id = done.run.provider_id
        await runtime.db(link_sessions.end, session_id=row.id, state=LinkSessionState.LINKED, linked_id=linked_id)
    return await sessions.look(runtime, session_id, held)


async def proposed(runtime: Context, content: bytes, options: Mapping[str, str]) -> Mapping[str, str]:
    """What is proposed to be said about a file that was refused; nothing if it cannot be read at all."""
    with suppress(Refused):
        return (await importing.look_at(runtime, content, options=options)).proposal
    return {}
