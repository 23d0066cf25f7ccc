"""JSON lines: one object for each row, with the name of its noun first."""

from __future__ import annotations

from typing import TextIO

import msgspec

from worker.services.export.books import NOUNS, Books


def write(books: Books, file: TextIO) -> None:
    """Writes all nouns. Amounts are decimal strings, times are UTC."""
    encode = msgspec.json.Encoder().encode
    for noun in NOUNS:
        names = ("noun", *books.columns(noun))
        file.writelines(encode(dict(zip(names, (noun, *row), strict=True))).decode() + "\n" for row in books.rows(noun))
