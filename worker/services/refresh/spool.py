"""This host's spool: draining it, and telling other hosts what is in it.

A file can be seen on one host alone. Another that finds the attempt without an end would present the old token while
its answer waits on a disk. So every attempt says on which host its answer would wait, every host tells Postgres what
waits there, and nobody presents a token before its host has told, or has been silent for long enough to be dead
(`worker.crud.refresh.spools`). It is told when a worker starts, before every task, and while a long one goes on.
"""

from __future__ import annotations

import asyncio
import os
from uuid import UUID, uuid4

import structlog

from worker.crud.refresh import spools
from worker.process.clocks import elapsed
from worker.services.context import Context
from worker.services.refresh import journal

log = structlog.get_logger()

_EVERY_SECONDS = 5.0
_AT_MOST_SECONDS = 10.0


async def settle(runtime: Context) -> None:
    """Tells what waits on this host's disk, and stores it. Never raises; does nothing when it was tried just now."""
    if not is_due(runtime):
        return
    runtime.spool_told_at = elapsed()
    try:
        async with asyncio.timeout(_AT_MOST_SECONDS):
            await _settle(runtime)
    except Exception as error:  # the caller must go on refreshing tokens
        log.warning("spool_untold", error=type(error).__name__, next="told and drained by the next try")


def is_due(runtime: Context) -> bool:
    """Whether the last try is long enough ago."""
    return elapsed() - runtime.spool_told_at >= _EVERY_SECONDS


async def _settle(runtime: Context) -> None:
    spool_id = await asyncio.to_thread(identity, runtime)
    if spool_id is None:
        return
    waiting = await asyncio.to_thread(journal.spooled, runtime)
    await runtime.db(spools.report, spool_id=spool_id, answers=waiting)
    if waiting:
        await journal.drain_spool(runtime)
        left = await asyncio.to_thread(journal.spooled, runtime)
        await runtime.db(spools.report, spool_id=spool_id, answers=left)


def identity(runtime: Context) -> UUID | None:
    """Names the directory; all processes that share it agree. None where no file can be written."""
    if runtime.spool_id is None:
        directory = journal.spool_directory(runtime)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft = directory / f".{uuid4().hex}"
            draft.write_text(str(uuid4()))
            try:
                os.link(draft, directory / "id")  # fails if another process was first
            except FileExistsError:
                pass
            finally:
                draft.unlink()
            runtime.spool_id = UUID((directory / "id").read_text())
        except (OSError, ValueError) as error:
            log.error(
                "spool_unusable", error=type(error).__name__, kept="answers have only Postgres and Redis to wait in"
            )
    return runtime.spool_id
