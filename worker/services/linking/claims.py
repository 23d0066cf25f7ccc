"""One request at a time completes a link session; the session ends in the transaction that stores the link."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from worker.crud import link_sessions, links
from worker.crud.database import OpenTransaction
from worker.errors import Declined, Refused, Taken, Unavailable
from worker.models import ProviderCreate
from worker.models.vocabulary import LinkSessionState
from worker.services.context import Context

TAKEN = "you have a login of this name already; nothing was changed. Choose another name"
_OVER = "this link session has ended or has expired, or another request is completing it now; nothing was changed"


def take(session: OpenTransaction, session_id: UUID, *, seconds: float) -> None:
    """Claims a session for one request. Raises `Refused` if it is not open, or another request has claimed it."""
    if not link_sessions.claim(session, session_id=session_id, seconds=seconds):
        raise Refused(_OVER)


@asynccontextmanager
async def released(runtime: Context, session_id: UUID | None) -> AsyncIterator[None]:
    """Ends the claim if the work fails, so that the person can try again. If the person has declined, ends the session.

    Without a session, it does nothing. If Postgres is away, the claim ends by itself.
    """
    try:
        yield
    except BaseException as error:
        if session_id is not None:
            with suppress(Unavailable):
                if isinstance(error, Declined):
                    await runtime.db(link_sessions.end, session_id=session_id, state=LinkSessionState.CANCELLED)
                else:
                    await runtime.db(link_sessions.release, session_id=session_id)
        raise


def require_new(
    session: OpenTransaction, session_id: UUID, provider_in: ProviderCreate, *, external_id: str | None
) -> None:
    """A session for a new login must not replace the login that has its name already.

    Raises:
        Taken: another login of this name is linked.
        NotFound: the session was removed together with its login.
    """
    if link_sessions.get(session, session_id=session_id).provider_id is None:
        refuse_linked(session, provider_in, external_id=external_id)


def refuse_linked(session: OpenTransaction, provider_in: ProviderCreate, *, external_id: str | None = None) -> None:
    """Raises `Taken` if the user's provider with this alias is linked, and not known to be linked to this login."""
    if links.has_other_login(session, provider_in=provider_in, external_id=external_id):
        raise Taken(TAKEN)


def finish(session: OpenTransaction, session_id: UUID, provider_id: UUID) -> None:
    """Ends the session as linked. Raises `Refused` if it has ended meanwhile, so that nothing is stored."""
    if not link_sessions.end(session, session_id=session_id, state=LinkSessionState.LINKED, linked_id=provider_id):
        raise Refused(_OVER)
