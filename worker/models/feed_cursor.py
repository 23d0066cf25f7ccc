"""Cursors of the change feed, and why one is refused."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Annotated, ClassVar
from uuid import UUID

import msgspec

from worker.errors import BadArgument, Refused
from worker.models.feed import LOADED


class CursorDamaged(BadArgument):
    """It is not a whole cursor of a feed."""

    def __init__(self) -> None:
        super().__init__(
            "this is not a cursor of the change feed, or a part of it is missing; give the `cursor` of the last answer"
            " as it was, or none to read everything"
        )


class CursorLost(Refused):
    """The cursor is genuine, but what came after it cannot be told any more: the reader must begin without a cursor.

    Attributes:
        kind: the last part of the problem's type in the HTTP API.
    """

    kind: ClassVar[str] = "lost"

    def __init__(self, happened: str) -> None:
        super().__init__(
            f"{happened}. Nothing was changed. Read everything again, without a cursor, and delete the rows that you do"
            " not meet again"
        )


class CursorElsewhere(CursorLost):
    """The cursor was given by another database."""

    kind = "of-another-database"


class CursorRestored(CursorLost):
    """The cursor was given before this database was restored, or saw what a crash or a failover has undone."""

    kind = "before-a-restore"


class CursorAhead(CursorLost):
    """The cursor is at a position that this database has not reached."""

    kind = "of-the-future"


class CursorExpired(CursorLost):
    """The cursor is so old that a part of the log after it has been deleted."""

    kind = "expired"


_Number = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Loading(msgspec.Struct, array_like=True, frozen=True):
    """How far a reader is that began without a cursor and gets all rows.

    Attributes:
        noun: index in `LOADED` of the noun that is read.
        account: id of the account whose rows are read, for the feed of one user.
        after: the last row that was read: the value by which rows are ordered, if there is one, and the id.
    """

    noun: Annotated[int, msgspec.Meta(ge=0, lt=len(LOADED))] = 0
    account: UUID | None = None
    after: tuple[str, UUID] | None = None


class Cursor(msgspec.Struct, array_like=True, frozen=True):
    """A position in the feed of one user, or in that of all.

    Attributes:
        origin: `ChangeOrigin.id`.
        place: digest of what a copy of the database does not share: see `crud.feed.positions`.
        user_id: whose feed; None for that of all.
        read: `ChangeRead.id` of the reading that gave this cursor.
        at: everything that was logged before this time was told; seconds since 1970.
        xid, sequence: of the row of the log that is read next.
        offset: how many ids of that row were told.
        loading: set until all rows were told.
    """

    origin: UUID
    place: bytes
    user_id: UUID | None
    read: UUID
    at: float
    xid: _Number
    sequence: _Number = 0
    offset: _Number = 0
    loading: Loading | None = None

    def __str__(self) -> str:
        """The text that readers keep."""
        packed = _VERSION + _pack(self)
        return base64.urlsafe_b64encode(packed + _digest(packed)).decode().rstrip("=")

    @classmethod
    def parse(cls, given: str) -> Cursor:
        """The cursor in a text.

        Raises:
            CursorDamaged: it is not a whole cursor of a feed.
        """
        try:
            packed = base64.b64decode(given + "=" * (-len(given) % 4), altchars=b"-_", validate=True)
            if packed[:1] == _VERSION and _digest(packed[:-_DIGEST]) == packed[-_DIGEST:]:
                return _unpack(packed[1:-_DIGEST])
        except (msgspec.MsgspecError, binascii.Error, ValueError):
            pass
        raise CursorDamaged


_VERSION = b"\x01"
_DIGEST = 8
_unpack = msgspec.msgpack.Decoder(Cursor).decode
_pack = msgspec.msgpack.Encoder(uuid_format="bytes").encode


def _digest(packed: bytes) -> bytes:
    # It recognises what was damaged. It is no secret: a cursor gives no access to anything.
    return hashlib.blake2b(packed, digest_size=_DIGEST, person=b"change feed").digest()
