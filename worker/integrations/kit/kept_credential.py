"""A credential with data beside it that the provider shows only once, such as the accounts of a new session.

Both are one text, which is stored encrypted like every token. What is needed in each later call is in it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from worker.errors import BadPayload
from worker.integrations.kit import reading

T = TypeVar("T")


class KeptCredential(Generic[T]):
    """Writes and reads such credentials.

    Args:
        prefix: a short word, by which the text is recognised and masked.
        shape: the msgspec type of what is kept.
        nothing: makes what is beside a credential that stands alone, anew each time: no login may get that of another.
    """

    def __init__(self, prefix: str, shape: type[T], nothing: Callable[[], T]) -> None:
        self._prefix, self._nothing = f"{prefix}.", nothing
        self._reader = reading.Reader(shape)

    @property
    def secret_shape(self) -> str:
        """A regular expression for such texts (`Integration.secret_shapes`)."""
        return rf"\b{re.escape(self._prefix)}[\w.-]{{30,}}"

    def write(self, id_: str, kept: T) -> str:
        """The text of both. The id must have no dot."""
        text = base64.urlsafe_b64encode(msgspec.json.encode(kept)).decode().rstrip("=")
        return f"{self._prefix}{id_}.{text}"

    def read(self, text: str) -> tuple[str, T]:
        """The id, and what was kept. An id alone, and one beside what cannot be read, has what `nothing` makes."""
        id_, _, kept = text.removeprefix(self._prefix).partition(".")
        if not kept:
            return id_, self._nothing()
        try:
            return id_, self._reader.page(base64.urlsafe_b64decode(kept + "=" * (-len(kept) % 4)))
        except (binascii.Error, BadPayload):
            return id_, self._nothing()
