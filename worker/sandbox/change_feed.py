"""Feeds of changes: opaque cursors over a login's change log, and pages of added, modified and removed rows."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Container
from dataclasses import dataclass, field

from worker.sandbox.core import Login
from worker.sandbox.ledger import Change
from worker.sandbox.wire import digest

Removal = Callable[[str, str], bytes]


class BadCursorError(Exception):
    """The cursor was not made for this owner and stream."""


class MutatedError(Exception):
    """The books changed between two pages of one loop."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in the change log.

    Attributes:
        stream: The account that the stream is limited to, or empty.
        base: The position at which the loop began; a row added since then is new to the client. Between two loops, it
            is equal to `position`.
        head: The newest change when the loop began.
        position: Number of changes that were already sent.
    """

    stream: str
    base: int
    head: int
    position: int

    def write(self, owner: str) -> str:
        """The cursor's text for the client; it is valid only for this owner."""
        text = f"{self.stream}|{self.base}|{self.head}|{self.position}"
        mark = digest("cursor", owner, text, size=6).hex()
        return base64.urlsafe_b64encode(f"{mark}|{text}".encode()).decode().rstrip("=")


def read_cursor(text: str, owner: str, stream: str) -> Cursor:
    """Reads a cursor. Raises BadCursorError if `Cursor.write` did not make it for this owner and stream."""
    try:
        _, *parts = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split("|")
        cursor = Cursor(parts[0], int(parts[1]), int(parts[2]), int(parts[3]))
    except (binascii.Error, ValueError, IndexError) as error:
        raise BadCursorError from error
    if cursor.write(owner) != text.rstrip("=") or cursor.stream != stream:
        raise BadCursorError
    return cursor


@dataclass(slots=True)
class Page:
    """Rendered rows of one page and the position after it."""

    added: list[bytes] = field(default_factory=list)
    modified: list[bytes] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)
    cursor: Cursor = Cursor("", 0, 0, 0)
    more: bool = False


def start(text: str, login: Login, owner: str, stream: str, *, mutation_stops: bool) -> Cursor:
    """The position of a request's cursor.

    Raises:
        BadCursorError: The cursor is not valid.
        MutatedError: The cursor is in the middle of a loop, and the books have changed since the loop began.
    """
    head = login.ledger.head
    if text == "now":
        return Cursor(stream, head, head, head)
    cursor = read_cursor(text, owner, stream) if text else Cursor(stream, 0, 0, 0)
    if cursor.position == cursor.base:
        return Cursor(stream, cursor.position, head, cursor.position)
    if mutation_stops and cursor.head != head:
        raise MutatedError
    return cursor


def page(login: Login, cursor: Cursor, count: int, *, accounts: Container[str], removal: Removal) -> Page:
    """The next `count` updates. A row changed several times since the last page is listed once, in its last state.

    Args:
        login: The login whose changes are listed.
        cursor: Where to begin.
        count: The largest number of updates on the page.
        accounts: Ids of the accounts that the feed lists.
        removal: Writes a removal as the provider does; gets the account id and the row id.
    """
    ledger, result = login.ledger, Page()
    changes, position = ledger.changes, cursor.position
    end, left = len(changes), count
    while position < end and left:
        change = changes[position]
        position += 1
        if change.account in accounts and _list(change, position, login, cursor, result, removal):
            left -= 1
    result.more = position < end
    result.cursor = Cursor(cursor.stream, cursor.base if result.more else position, cursor.head, position)
    return result


def _list(change: Change, position: int, login: Login, cursor: Cursor, result: Page, removal: Removal) -> bool:
    """Puts one change on the page. Returns False if the client does not need it."""
    row = change.transaction
    if change.operation == "verbatim":
        result.added.append(change.raw)
    elif row is None:
        result.removed.append(removal(change.account, change.id))
    elif change.operation == "repeat":
        if row.removed:
            return False
        result.added.append(login.profile.render(row))
    elif row.changed_at != position or not login.visible(row):
        return False
    elif change.operation == "remove":
        # Added and removed before this loop began: no page can have listed it.
        if row.added_at > cursor.base and position <= cursor.head:
            return False
        login.served.transactions.discard(row.id)
        result.removed.append(removal(change.account, row.id))
    else:
        login.served.transactions.add(row.id)
        new = row.added_at > cursor.base
        (result.added if new else result.modified).append(login.profile.render(row))
    return True
