"""Events of runs, refreshes and logins for all who listen to this process.

One query a second serves all streams of the process, and none is run while nobody listens. A stream that was cut off
goes on after the last event that its client got: nothing is told twice, nothing is left out.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from worker.crud import api_keys
from worker.crud.database import OpenTransaction
from worker.crud.fleet import changes
from worker.crud.fleet.changes import Reach
from worker.errors import DashtamError
from worker.models.changes import Change, Position
from worker.process.logger import Logger
from worker.services.access.keys import Principal
from worker.services.context import Context

log = Logger(__name__)

EVERY_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
_MOST_CHANGES = 5000
_MOST_WAITING = 20
_MOST_STREAMS = 400
_OLDEST = timedelta(hours=1)
_SLACK = timedelta(seconds=10)


class TooManyStreams(DashtamError):  # noqa: N818
    """This key, or this process, has as many streams as it may have."""


@dataclass(frozen=True, slots=True)
class Told:
    """One message to a client.

    Attributes:
        change: what happened; None for a message that only says that the stream is alive, or where it is.
        position: where the client is after this message; None if more of the same transaction follows.
        is_reset: something may have been left out, so the client should read everything anew.
    """

    change: Change | None
    position: Position | None
    is_reset: bool = False


Batch = tuple[list[Change], Position, bool]


@dataclass(eq=False, slots=True)
class _Stream:
    principal: Principal
    seen: Position
    batches: asyncio.Queue[Batch | None] = field(default_factory=asyncio.Queue)

    def give(self, found: list[Change], position: Position, *, is_reset: bool) -> None:
        """Puts what this client may see into its queue. A client that is too slow is told to read everything anew."""
        if self.batches.qsize() >= _MOST_WAITING:
            while not self.batches.empty():
                self.batches.get_nowait()
            found, is_reset = [], True
        owner = self.principal.user_id
        visible = [one for one in found if owner in (None, one.user_id) and not self.seen.has_seen(one.transaction)]
        if visible or is_reset:
            self.batches.put_nowait((visible, position, is_reset))


class Events:
    """The streams of one process.

    Args:
        runtime: the process's context.
        every_s: seconds between two looks at the database.
    """

    def __init__(self, runtime: Context, *, every_s: float = EVERY_SECONDS) -> None:
        self._runtime = runtime
        self._every_s = every_s
        self._streams: set[_Stream] = set()
        self._reader: asyncio.Task[None] | None = None
        self._position: Position | None = None
        settings = runtime.settings
        step = timedelta(seconds=settings.database_step_seconds) + _SLACK
        self._reach = Reach(
            run=timedelta(seconds=settings.sync_budget_seconds + settings.run_dead_seconds) + step,
            refresh=timedelta(seconds=settings.lease_seconds) + 2 * step,
            transaction=step,
        )

    async def listen(self, principal: Principal, last_id: str = "") -> AsyncIterator[Told]:
        """Opens a stream.

        Args:
            principal: whose events.
            last_id: the id of the last event that the client got; "" to begin with what happens now.

        Returns:
            What to tell the client, without an end, until the key is revoked.

        Raises:
            TooManyStreams: see there.
            BadArgument: `last_id` is not an event's id.
            Unavailable: Postgres is out of reach.
        """
        self._require_room(principal)
        wanted = Position.read(last_id) if last_id else None
        here = await self._runtime.db(changes.here)
        begun_at = self._position = self._position or here
        is_lost = wanted is not None and _is_lost(wanted, here)
        stream = _Stream(principal, begun_at if wanted is None or is_lost else wanted)
        self._streams.add(stream)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        try:
            missed = ([], begun_at, is_lost) if stream.seen is begun_at else await self._missed(stream.seen, begun_at)
        except BaseException:
            self._close(stream)
            raise
        telling = self._tell(stream, missed)
        await anext(telling)  # from now on it closes the stream, whatever ends it
        return telling

    async def aclose(self) -> None:
        """Ends all streams and the reader."""
        self.end_all()
        if self._reader is not None:
            self._reader.cancel()
            with suppress(asyncio.CancelledError):
                await self._reader

    def end_all(self) -> None:
        """Ends all streams after what is in their queues; their clients connect anew, perhaps to another process."""
        for stream in self._streams:
            stream.batches.put_nowait(None)

    def _require_room(self, principal: Principal) -> None:
        most = self._runtime.settings.web_streams_per_key
        open_ = Counter(stream.principal.key_id for stream in self._streams)[principal.key_id]
        if open_ >= most:
            raise TooManyStreams(f"this API key has {open_} streams of events open, as many as it may: close one first")
        if len(self._streams) >= _MOST_STREAMS:
            raise TooManyStreams("this server has as many streams of events open as it can: try again later")

    async def _missed(self, seen: Position, begun_at: Position) -> Batch:
        """What happened between the client's position and the position from which the reader serves it."""
        found, _ = await self._runtime.db(changes.since, position=seen, reach=self._reach, most=_MOST_CHANGES)
        if len(found) >= _MOST_CHANGES:
            return [], begun_at, True
        return [one for one in found if begun_at.has_seen(one.transaction)], begun_at, False

    async def _tell(self, stream: _Stream, missed: Batch) -> AsyncIterator[Told]:
        owner = stream.principal.user_id
        found, here, is_reset = missed
        batch: Batch | None = ([one for one in found if owner in (None, one.user_id)], here, is_reset)
        try:
            yield Told(None, here)
            while batch is not None:
                found, here, is_reset = batch
                if is_reset:
                    yield Told(None, here, is_reset=True)
                for number, change in enumerate(found, 1):
                    yield Told(change, here if number == len(found) else None)
                if not found and not is_reset:
                    yield Told(None, here)
                batch = await self._next(stream, here)
        finally:
            self._close(stream)

    async def _next(self, stream: _Stream, here: Position) -> Batch | None:
        try:
            return await asyncio.wait_for(stream.batches.get(), HEARTBEAT_SECONDS)
        except TimeoutError:
            # All batches of this stream are read: up to the reader's position, nothing was left out.
            latest = self._position or here
            return [], latest if latest.at > here.at else here, False

    def _close(self, stream: _Stream) -> None:
        self._streams.discard(stream)
        if not self._streams and self._reader is not None:
            self._reader.cancel()
            self._reader = self._position = None

    async def _read(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self._read_once()
            except DashtamError as error:  # Postgres is away: what happens meanwhile is read afterwards
                log.warning("events_wait", error=type(error).__name__, next="streams stay open, and are served later")
            except Exception:
                log.exception("events_failed", next="all streams end, and their clients connect anew")
                self._reader = self._position = None  # the next client's stream gets a new reader
                self.end_all()
                return

    async def _read_once(self) -> None:
        position = self._position
        if position is None:
            return
        keys = {stream.principal.key_id for stream in self._streams}

        def read(session: OpenTransaction) -> tuple[list[Change], Position, set[UUID]]:
            found = changes.since(session, position=position, reach=self._reach, most=_MOST_CHANGES)
            return *found, api_keys.valid_ids(session, ids=keys)

        found, here, valid = await self._runtime.db(read)
        self._position = here
        is_reset = len(found) >= _MOST_CHANGES
        for stream in list(self._streams):
            if stream.principal.key_id not in valid and stream.principal.key_id in keys:
                stream.batches.put_nowait(None)
            else:
                stream.give([] if is_reset else found, here, is_reset=is_reset)


def _is_lost(wanted: Position, here: Position) -> bool:
    """Whether what happened since `wanted` cannot be found any more: it is too old, or of another database."""
    return here.at - wanted.at > _OLDEST or wanted.next_number > here.next_number or wanted.at > here.at + _SLACK
