"""What a login's provider has answered in one reading, as one digest per answer.

If a later reading starts from the same cursors, on the same day, and hears the same answers in the same order, then its
pages are the same, too. So what they bring is known without taking the answers apart.
"""

from __future__ import annotations

from hashlib import blake2b

_SIZE = 8
"""Bytes of a digest. Each digest also covers all answers before it, so two readings that differ once stay different."""
_MOST = 128
"""A reading of more answers than this equals no other, so its digests take at most 1 KiB."""


class Heard:
    """The answers of one reading, in the order in which they came.

    Args:
        start: everything besides the answers that decides which pages are made of them.
    """

    def __init__(self, *start: object) -> None:
        self._state = blake2b(repr(start).encode(errors="surrogatepass"), digest_size=_SIZE)
        self._digests: list[bytes] | None = []

    def note(self, url: str, account_key: str | None, status: int, body: bytes) -> None:
        """Adds an answer.

        Args:
            url: the address that was asked, without the query.
            account_key: the account that the call was about.
            status: of the answer.
            body: of the answer, without what differs each time although nothing has happened.
        """
        if self._digests is None:
            return
        if len(self._digests) == _MOST:
            self._digests = None
            return
        self._state.update(f"{url}\0{account_key}\0{status}\0{len(body)}\0".encode(errors="surrogatepass"))
        self._state.update(body)
        self._digests.append(self._state.digest())

    def note_failure(self) -> None:
        """A call brought no answer: from now on this reading equals no other."""
        self._digests = None

    @property
    def is_comparable(self) -> bool:
        """Whether another reading may equal this one; if not, answers need not be noted."""
        return self._digests is not None

    @property
    def value(self) -> bytes:
        """The digests, one after another; empty if the reading cannot be compared."""
        return b"".join(self._digests or ())

    def begins(self, value: bytes) -> bool:
        """Whether the answers so far are the first ones of another reading, of which `value` was kept."""
        return self._digests is not None and value.startswith(self.value)
