"""Makes sure that claims find everything that is due."""

from __future__ import annotations

import asyncio

import structlog

from worker.crud import due_times
from worker.services.context import Context

log = structlog.get_logger()

_AT_ONCE = 20_000
_PAUSE_S = 0.05


async def ensure_filled(runtime: Context) -> None:
    """Fills the table of due times if Postgres has emptied it; that takes ten seconds for a million logins.

    Raises:
        Unavailable: Postgres is out of reach; the next tick goes on.
    """
    if await runtime.db(due_times.is_filled):
        return
    log.info("due_times_filling", next="claims go on when it is done")
    while True:
        if await runtime.db(due_times.fill, at_most=_AT_ONCE):
            break
        await asyncio.sleep(_PAUSE_S)  # perhaps another process fills it just now
    log.info("due_times_filled")
