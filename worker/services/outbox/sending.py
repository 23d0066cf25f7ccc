"""Sends what is due in the outbox. Each subscription has its own places, so that a slow one delays no other.

A delivery is claimed, and its attempt counted, before it is sent; then its end is recorded. So none is lost: if the
sender dies in between, the claim ends and the delivery is sent again under the same id. Only so can it be received
twice: while Postgres cannot record what was received, the process keeps it in memory and records it as soon as Postgres
answers.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Protocol
from uuid import UUID

from worker.crud.outbox import deliveries
from worker.crud.outbox.deliveries import Pace
from worker.errors import EncryptionError, Unavailable, Undelivered
from worker.integrations.receivers import Receivers, Reply
from worker.models.outbox import Attempted, Outgoing
from worker.process import failpoints
from worker.process.logger import Logger
from worker.services.context import Context
from worker.services.outbox import signing
from worker.services.outbox.subscriptions import open_secrets
from worker.telemetry import metrics

log = Logger(__name__)

RETRIES = tuple(
    timedelta(seconds=seconds) for seconds in (5, 5 * 60, 30 * 60, *(hours * 3600 for hours in (2, 5, 10, 14, 20, 24)))
)
"""The waits after the first attempt, the second, …: what Standard Webhooks recommends, a little over three days."""
GIVEN_UP_AFTER = sum(RETRIES, timedelta())
"""Deliveries to a subscription that has failed for so long are parked."""
LONGEST_PAUSE = timedelta(hours=1)
"""The longest time for which one `Retry-After` stops all deliveries to a subscription."""
_JITTER = 0.1
_SLOW_SECONDS = 2.0
_POLL_SECONDS = 0.5
_SECONDS = 20.0
_SHARE = 0.3
_PARK_BATCH = 1000
_RECORD_PAUSE = 1.0


class Post(Protocol):
    """The part of `Receivers` that is used here."""

    async def post(self, url: str, *, headers: dict[str, str], body: bytes) -> Reply:
        """See `Receivers.post`."""
        ...


async def send_due(
    runtime: Context, *, post: Post | None = None, seconds: float | None = None, pace: Pace | None = None
) -> int:
    """Sends until nothing is due, or `seconds` have passed. Returns how many deliveries were received.

    Args:
        runtime: the process's context.
        post: sends one body; made from the settings when left out.
        seconds: after this time, only subscriptions that answer quickly are served, while others end. The usual time
            leaves enough of the task's time limit to those that are slow.
        pace: how much is sent to one subscription at a time.

    Raises:
        Unavailable: Postgres is out of reach; nothing is lost. The next call first records what was received.
    """
    settings = runtime.settings
    seconds = min(_SECONDS, settings.task_soft_time_limit * _SHARE) if seconds is None else seconds
    claim = timedelta(seconds=max(settings.claim_seconds, 3 * settings.http_total_seconds))
    pace = pace or Pace(claim=claim)
    await _record_kept(runtime, pace)
    now = await runtime.now()
    parked = await runtime.db(deliveries.park, now=now, before=now - GIVEN_UP_AFTER, limit=_PARK_BATCH)
    if parked:
        log.error("hooks_parked", count=parked, next="dashtam hooks list")
    if post is not None:
        return await _Sender(runtime, post, pace, seconds).run()
    own = Receivers(settings.allowed_networks, seconds=settings.http_total_seconds)
    try:
        return await _Sender(runtime, own, pace, seconds).run()
    finally:
        await own.aclose()


class _Sender:
    """One call of `send_due`."""

    def __init__(self, runtime: Context, post: Post, pace: Pace, seconds: float) -> None:
        self._runtime = runtime
        self._post = post
        self._pace = pace
        self._stop_at = asyncio.get_running_loop().time() + seconds
        self._serving: dict[UUID, asyncio.Task[None]] = {}
        self._slow: set[UUID] = set()
        self._received = 0

    async def run(self) -> int:
        """Looks for subscriptions with due deliveries, and serves each in a task of its own."""
        try:
            while True:
                due = await self._claim_all()
                for subscription_id, batch in due.items():
                    self._serving[subscription_id] = asyncio.create_task(self._serve(subscription_id, batch))
                if not self._serving:
                    return self._received
                await asyncio.wait(self._serving.values(), timeout=_POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                await self._collect()
        finally:
            # An error has ended it: what was sent is recorded before anybody is told.
            await asyncio.gather(*self._serving.values(), return_exceptions=True)

    def _is_late(self, grace: float = 0) -> bool:
        return asyncio.get_running_loop().time() > self._stop_at + grace

    async def _claim_all(self) -> dict[UUID, list[Outgoing]]:
        """What is due now. When the time is over, only what need not wait for the slow ones that are still served."""
        if self._is_late() and (not self._serving or self._is_late(self._runtime.settings.http_total_seconds)):
            return {}
        return await self._claim(but=[*self._serving, *(self._slow if self._is_late() else ())])

    async def _claim(self, *, but: Sequence[UUID] = (), only: UUID | None = None) -> dict[UUID, list[Outgoing]]:
        now = await self._runtime.now()
        claimed = await self._runtime.db(deliveries.claim, now=now, pace=self._pace, but=but, only=only)
        failpoints.reach(self._runtime.settings.failpoints, "hook_claimed")
        whose = attrgetter("secrets.subscription_id")
        return {id_: list(batch) for id_, batch in groupby(sorted(claimed, key=whose), key=whose)}

    async def _collect(self) -> None:
        for id_, task in list(self._serving.items()):
            if task.done():
                del self._serving[id_]
                await task  # raises the error that ended it

    async def _serve(self, subscription_id: UUID, batch: list[Outgoing]) -> None:
        """Sends to one subscription until nothing is due there, it fails, or the time is over and it is slow."""
        loop = asyncio.get_running_loop()
        while batch:
            begun = loop.time()
            ended = await asyncio.gather(*map(self._send, batch), return_exceptions=True)
            for one in ended:
                if isinstance(one, BaseException):
                    raise one
            if not all(ended) or loop.time() - begun > _SLOW_SECONDS:
                self._slow.add(subscription_id)
            if self._is_late() or not all(ended):
                return
            batch = (await self._claim(only=subscription_id)).get(subscription_id, [])

    async def _send(self, outgoing: Outgoing) -> bool:
        begun = asyncio.get_running_loop().time()
        attempted = await self._attempt(outgoing)
        outcome = "received" if attempted.received else "parked" if attempted.retry_at is None else "failed"
        metrics.observe_sent_hook(outgoing.type, outcome, asyncio.get_running_loop().time() - begun)
        if not attempted.received:
            log.warning(
                "hook_unsent",
                hook_id=str(attempted.subscription_id),
                event_id=str(attempted.event_id),
                type=outgoing.type,
                error=attempted.error,
                attempts=outgoing.attempts,
                retry_at=str(attempted.retry_at),
            )
        self._runtime.unrecorded_hooks[attempted.event_id, attempted.subscription_id] = attempted
        failpoints.reach(self._runtime.settings.failpoints, "hook_sent")
        await _record(self._runtime, attempted, self._pace)
        failpoints.reach(self._runtime.settings.failpoints, "hook_recorded")
        self._received += attempted.received
        return attempted.received

    async def _attempt(self, outgoing: Outgoing) -> Attempted:
        now = await self._runtime.now()
        status, error, reply = None, None, None
        try:
            by = open_secrets(self._runtime, outgoing.secrets, now)
            body = compose(outgoing)
            signed = signing.headers(body, event_id=str(outgoing.event_id), timestamp=int(now.timestamp()), by=by)
            reply = await self._post.post(outgoing.url, headers=signed, body=body)
            status = reply.status
            if not reply.received:
                error = "it redirects, which is not followed" if 300 <= status < 400 else f"it answered {status}"
        except (Undelivered, EncryptionError) as failure:
            error = str(failure)
        at = await self._runtime.now()
        received, gone = error is None, reply is not None and reply.gone
        pause = None if reply is None else reply.pause
        return Attempted(
            event_id=outgoing.event_id,
            subscription_id=outgoing.secrets.subscription_id,
            at=at,
            received=received,
            status=status,
            retry_at=None if received or gone else retry_at(outgoing.attempts, at, pause),
            pause_until=None if received or pause is None else at + min(pause, LONGEST_PAUSE),
            gone=gone,
            error=error,
        )


def retry_at(attempts: int, at: datetime, pause: timedelta | None) -> datetime | None:
    """When a delivery is tried again that was tried `attempts` times; None if it is given up.

    `pause` is the receiver's `Retry-After`, which can only put it off, by a day at most.
    """
    if attempts > len(RETRIES):
        return None
    wait = RETRIES[attempts - 1] * (1 + _JITTER * random.random())  # noqa: S311 - jitter needs no secrecy
    return at + max(wait, min(pause or timedelta(), RETRIES[-1]))


def compose(outgoing: Outgoing) -> bytes:
    """The body: what happened, when, and to what; the same at each attempt."""
    event = {"type": outgoing.type, "timestamp": outgoing.created_at.isoformat(), "data": outgoing.data}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


async def _record(runtime: Context, attempted: Attempted, pace: Pace) -> None:
    """Records the end of an attempt. While Postgres is out of reach, it tries again until the claim is about to end.

    Raises:
        Unavailable: Postgres did not answer until then; the end is kept in memory.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + pace.claim.total_seconds() / 2
    while True:
        try:
            await runtime.db(deliveries.record, attempted=attempted, pace=pace)
        except Unavailable:
            if loop.time() > give_up_at:
                raise
            await asyncio.sleep(_RECORD_PAUSE)
        else:
            runtime.unrecorded_hooks.pop((attempted.event_id, attempted.subscription_id), None)
            return


async def _record_kept(runtime: Context, pace: Pace) -> None:
    for attempted in list(runtime.unrecorded_hooks.values()):
        await runtime.db(deliveries.record, attempted=attempted, pace=pace)
        runtime.unrecorded_hooks.pop((attempted.event_id, attempted.subscription_id), None)
