"""This host's spool: storing the answers that wait in it, and reporting them to other hosts.

A spool file can be read on one host only. If another host found the attempt without an outcome, it would present the
old token while the answer waits on this host's disk. So every attempt records on which host its answer would wait, and
every host reports to Postgres what waits there. Nobody presents the token before that host has reported, or has been
silent for so long that it counts as dead (`worker.crud.refresh.spools`). A host reports when a worker starts, before
every task, and during a long task.
"""

from __future__ import annotations

import asyncio
import os
from uuid import UUID, uuid4

from worker.crud.refresh import spools
from worker.process.clocks import elapsed
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.host import spool_directory
from worker.services.refresh import journal

log = Logger(__name__)

_EVERY_SECONDS = 5.0
_AT_MOST_SECONDS = 10.0


async def settle(runtime: Context) -> None:
    """Reports what waits in this host's spool, and stores it. Never raises; does nothing shortly after the last try."""
    if not is_due(runtime):
        return
    runtime.spool_told_at = elapsed()
    try:
        async with asyncio.timeout(_AT_MOST_SECONDS):
            await _settle(runtime)
    except Exception as error:  # the caller must be able to refresh tokens
        log.warning("spool_untold", error=type(error).__name__, next="told and drained by the next try")


async def keep_settling(runtime: Context) -> None:
    """Stores what waits in this host's spool, until it is cancelled. For a process that has no tasks: the HTTP API.

    Its own answers, those to new links, may wait on a disk that no worker reads. Nothing is asked while nothing waits.
    """
    while True:
        if await asyncio.to_thread(journal.is_anything_spooled, runtime):
            await settle(runtime)
        await asyncio.sleep(_EVERY_SECONDS)


def is_due(runtime: Context) -> bool:
    """Whether enough time has passed since the last try."""
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
    """Id of the spool directory, the same for all processes that use it. None if no file can be written there."""
    if runtime.spool_id is None:
        directory = spool_directory(runtime)
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
