"""One reading of a login's feeds, which may first look whether the provider says anything new; how it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from importlib.metadata import version
from typing import Any, cast

from worker.crud.sync.nouns import raw_hasher
from worker.crud.sync.runs import RunBegun
from worker.crud.sync.work import Rules
from worker.integrations.kit.base import SyncRequest
from worker.integrations.kit.heard import Heard
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.masking import masked
from worker.models.pages import Page
from worker.services.context import Context
from worker.settings import Settings

_MOST_ROWS = 2000
"""So many transactions are kept while looking; several logins are looked at together, so this limits their memory."""


class Reading:
    """The pages of one reading. Pages that `repeats` has read are kept, and `pages` gives them again.

    Args:
        integration: the login's integration.
        request: what is asked for.
    """

    def __init__(self, integration: Integration, request: SyncRequest) -> None:
        self._heard = Heard(*_start(integration, request))
        self.request = replace(request, caller=replace(request.caller, heard=self._heard))
        self._stream = cast("AsyncGenerator[Page, None]", integration.pages(self.request))
        self._kept: list[Page] = []
        self._error: Exception | None = None

    @property
    def answers(self) -> bytes | None:
        """What was heard; None if a later reading cannot be compared with it."""
        return self._heard.value or None

    async def repeats(self, answers: bytes, *, until: float) -> bool:
        """Whether the provider answers as in the reading of which `answers` was kept.

        It stops reading at the first difference, at an error, after 2,000 transactions, or at the time `until` of the
        event loop. Then `pages` gives what was read so far, or raises the error, and reads on.
        """
        loop, rows = asyncio.get_running_loop(), 0
        try:
            async for page in self._stream:
                self._kept.append(page)
                rows += len(page.transactions)
                if page.problems or page.rejects or not self._heard.begins(answers):
                    return False
                if rows > _MOST_ROWS or loop.time() > until:
                    return False
        except Exception as error:  # `pages` raises it where it would have been raised without this look ahead
            self._error = error
            return False
        return self._heard.value == answers

    async def pages(self) -> AsyncGenerator[Page, None]:
        """All pages of the reading."""
        try:
            while self._kept:
                yield self._kept.pop(0)
            if self._error is not None:
                raise self._error
            async for page in self._stream:
                yield page
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Ends the reading."""
        self._kept.clear()
        await self._stream.aclose()


def spans(settings: Settings) -> dict[str, timedelta]:
    """How far a sync reads back, as the arguments of a `SyncRequest`."""
    return {
        "backfill": timedelta(days=settings.sync_backfill_days),
        "overlap": timedelta(days=settings.sync_overlap_days),
        "window": timedelta(days=settings.sync_window_days),
    }


def shortest_interval(integration: Integration, settings: Settings) -> timedelta:
    """How long a login is left alone after a run has read it; less where the quotas are larger."""
    return integration.shortest_interval / settings.quota_scale


def usual_interval(integration: Integration, settings: Settings, own: int | None) -> timedelta:
    """The time between successful syncs of a login. `own` is the login's own interval in seconds."""
    if own:
        return timedelta(seconds=own)
    return max(timedelta(seconds=settings.sync_interval), integration.usual_interval / settings.quota_scale)


def _start(integration: Integration, request: SyncRequest) -> tuple[Any, ...]:
    """Everything besides the provider's answers that decides which pages are made of them, and what they change.

    The day is part of it, because each day has its own snapshots and windows. So all rows are compared at least once a
    day. The release is part of it, because a mapping may change without a new mapping version.
    """
    return (
        _release(),
        integration.key,
        integration.mapping_version,
        request.now.date(),
        sorted(request.cursors.items()),
        request.since,
        sorted(request.done),
        request.backfill,
        request.overlap,
        request.window,
    )


@cache
def _release() -> str:
    return version("dashtam-worker")


def rules(runtime: Context, begun: RunBegun, integration: Integration) -> Rules:
    """The rules of a run whose pages come from this integration.

    Args:
        runtime: the process's context.
        begun: the run.
        integration: whose mapping makes the rows.
    """
    return Rules(
        content_hashes=raw_hasher(integration.key, integration.mapping_version),
        mask=masked,
        mass_deletion_share=runtime.settings.mass_deletion_share,
        open_quarantine=begun.open_quarantine,
        # Further files are for accounts that are there, also for those that an institution states.
        expect_new=begun.is_first and not integration.reads_files,
        memory_feeds=integration.memory_feeds,
        reads_files=integration.reads_files,
        file_keys=frozenset(key for key, one in runtime.integrations.items() if one.reads_files),
    )
