"""Attempts that may be in the table but were certainly never sent.

Attempts are committed before they are sent. When the connection to Postgres is lost during that commit, it is unknown
whether they are in the table. Nothing is sent for them, so they must not count as presentations of their tokens:
otherwise two such commits would look like a lost rotation. They are noted in memory and in Redis, where every worker
finds them, until Postgres has recorded that they were not sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from redis.exceptions import RedisError

from worker.crud.refresh import tokens
from worker.crud.refresh.records import AttemptBegun
from worker.errors import Unavailable
from worker.process.logger import Logger
from worker.process.redis_names import UNSENT
from worker.services.context import Context

log = Logger(__name__)

_SECONDS = 10.0

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AttemptBegun).decode


async def note(runtime: Context, attempts: Sequence[AttemptBegun]) -> None:
    """Notes these attempts until `tell` has recorded them. Never raises."""
    if not attempts:
        return
    runtime.unsent.update({str(attempt.id): attempt for attempt in attempts})
    entries = {str(attempt.id): _encode(attempt) for attempt in attempts}
    try:
        await asyncio.to_thread(runtime.redis.hset, UNSENT, mapping=cast("Any", entries))
        place = "redis"
    except RedisError:
        place = "memory"
    log.warning("attempts_not_sent", attempts=len(attempts), place=place, next="written down when Postgres answers")


async def tell(runtime: Context) -> None:
    """Records in Postgres the unsent attempts that this process or any other has noted.

    Raises:
        Unavailable: Postgres or Redis is out of reach; everything stays noted.
    """
    noted = dict(runtime.unsent) | await asyncio.to_thread(_read, runtime)
    if not noted:
        return
    await runtime.db(tokens.mark_not_sent, attempts=list(noted.values()))
    for name in noted:
        runtime.unsent.pop(name, None)
    await asyncio.to_thread(_forget, runtime, list(noted))
    log.info("attempts_marked_not_sent", attempts=len(noted))


async def try_to_tell(runtime: Context) -> None:
    """Does the same if this process has noted something. Never raises."""
    if not runtime.unsent:
        return
    try:
        async with asyncio.timeout(_SECONDS):
            await tell(runtime)
    except (Unavailable, TimeoutError):
        log.warning("attempts_still_noted", attempts=len(runtime.unsent))


def _read(runtime: Context) -> dict[str, AttemptBegun]:
    try:
        found = cast("dict[bytes, bytes]", runtime.redis.hgetall(UNSENT))
    except RedisError:
        raise Unavailable("Redis is away, so that it is unknown which attempts were never sent") from None
    return {name.decode(): _decode(raw) for name, raw in found.items()}


def _forget(runtime: Context, names: Sequence[str]) -> None:
    try:
        runtime.redis.hdel(UNSENT, *names)
    except RedisError:  # recording them a second time is harmless
        log.warning("notes_left", attempts=len(names), next="removed the next time they are told")
