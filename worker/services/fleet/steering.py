"""What operators change: pause, resume and sync interval of a login, quarantined records and dead letters."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from uuid import UUID

from worker.crud import steering
from worker.crud.database import OpenTransaction
from worker.crud.sync import quarantine
from worker.errors import Refused
from worker.models.fleet import Failure, ProviderRow
from worker.services.context import Context
from worker.services.fleet import lookup, past
from worker.services.fleet.asking import Send


async def pause(runtime: Context, given: str, *, actor: str, reason: str | None) -> tuple[ProviderRow, bool]:
    """Stops the schedule's work for a login. Returns the login, and whether this changed anything.

    Raises:
        BadArgument: `given` names no login, or more than one.
        Refused: it is neither active nor paused.
    """

    def change(session: OpenTransaction) -> tuple[ProviderRow, bool]:
        row = lookup.provider(session, given)
        return row, steering.pause_provider(session, provider_id=row.id, actor=actor, reason=reason)

    return await runtime.db(change)


async def resume(runtime: Context, given: str, *, actor: str) -> tuple[ProviderRow, bool]:
    """Makes a paused login active again. Returns and raises the same as `pause`."""

    def change(session: OpenTransaction) -> tuple[ProviderRow, bool]:
        row = lookup.provider(session, given)
        return row, steering.resume_provider(session, provider_id=row.id, actor=actor, now=datetime.now(UTC))

    return await runtime.db(change)


async def set_interval(runtime: Context, given: str, *, seconds: int | None, actor: str) -> tuple[ProviderRow, bool]:
    """Sets how often a login is synced; None means `SYNC_INTERVAL`. Returns it, and whether this changed anything.

    Raises:
        BadArgument: `given` names no login, or more than one.
    """

    def change(session: OpenTransaction) -> tuple[ProviderRow, bool]:
        row = lookup.provider(session, given)
        changed = steering.set_sync_interval(
            session,
            provider_id=row.id,
            seconds=seconds,
            default=runtime.settings.sync_interval,
            now=datetime.now(UTC),
            actor=actor,
        )
        return row, changed

    return await runtime.db(change)


async def dismiss_entry(runtime: Context, given: str, *, actor: str) -> UUID:
    """Resolves a quarantined record that needs no correction. Returns its id.

    Raises:
        BadArgument, NotFound: `given` names no entry, or more than one.
    """

    def dismiss(session: OpenTransaction) -> UUID:
        id_ = past.entry(session, given).id
        quarantine.dismiss(session, entry_id=id_, now=datetime.now(UTC), actor=actor)
        return id_

    return await runtime.db(dismiss)


async def replay_failure(runtime: Context, given: str, *, actor: str, send: Send) -> tuple[Failure, str]:
    """Sends a dead letter's task again. Returns the failure, and the id of the new message.

    Raises:
        BadArgument, NotFound: `given` names no failure, or more than one.
        Refused: it has been sent again already.
        Unavailable: the broker is out of reach; nothing was sent.
    """
    found = await runtime.db(past.failure, given)
    if found.resolved_at is not None:
        raise Refused(f"it was resolved before ({found.resolution}); nothing was sent")
    arguments = found.arguments
    task_id = await asyncio.to_thread(send, found.task_name, *arguments.get("args", []), **arguments.get("kwargs", {}))
    resolution = f"sent again by {actor} as {task_id}"
    await runtime.db(steering.resolve_failure, failure_id=found.id, resolution=resolution, now=datetime.now(UTC))
    return found, task_id
