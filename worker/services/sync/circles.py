"""Finds out whether the pages of a reading go round in circles or do not come to an end."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, time, timedelta
from hashlib import blake2b

from worker.errors import BadPayload
from worker.integrations.kit.base import SyncRequest
from worker.models.pages import Page

_MAX_PAGES = 20_000
_MAX_IDLE_PAGES = 100
_MAX_RETURNS = 5
"""How often one position may come. A feed by offset is read again when its rows shift: three times is still normal."""


class Circles:
    """What has to be remembered of the pages of one reading.

    Args:
        request: what was asked for.
    """

    def __init__(self, request: SyncRequest) -> None:
        # Not compared with stored cursors: when an overlap is read again, that may end there.
        self._served: dict[str, str | None] = {}
        self._times: Counter[bytes] = Counter()
        self._idle: Counter[str] = Counter()
        self._most_idle = _MAX_IDLE_PAGES + _windows_at_most(request)
        self._pages = 0

    def check(self, page: Page) -> None:
        """Checks the next page.

        Raises:
            BadPayload: `cursor_loop` or `endless_pages`.
        """
        self._pages += 1
        if page.more and page.cursor is not None:
            position = _digest(page.feed, page.cursor)
            self._times[position] += 1
            if page.cursor == self._served.get(page.feed) or self._times[position] > _MAX_RETURNS:
                raise BadPayload("cursor_loop")
        self._served[page.feed] = page.cursor
        self._idle[page.feed] = self._idle[page.feed] + 1 if _is_idle(page) else 0
        if self._pages > _MAX_PAGES or self._idle[page.feed] > self._most_idle:
            raise BadPayload("endless_pages")


def _digest(feed: str, cursor: str) -> bytes:
    """A digest of a position in a feed; it has a fixed size, however long the cursor is."""
    return blake2b(f"{feed}\0{cursor}".encode(errors="surrogatepass"), digest_size=16).digest()


def _is_idle(page: Page) -> bool:
    """Whether a page brings nothing and says that there are more."""
    return page.more and not (page.transactions or page.removals or page.rejects)


def _windows_at_most(request: SyncRequest) -> int:
    """The largest number of pages that a feed by date may have although all of them are empty."""
    first = request.now - request.backfill
    if request.since is not None:
        first = min(first, datetime.combine(request.since, time.min, tzinfo=UTC))
    return (request.now - first) // max(request.window, timedelta(days=1)) + 1
