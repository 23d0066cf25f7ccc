from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.array import ListBinaryDumper

from worker.crud.sync import apply

SIXTEENS = [bytes([number]) * 16 for number in range(3)]


def as_sent(values: Any) -> tuple[int, bytes]:
    sent = Transformer().get_dumper(values, PyFormat.BINARY)
    return sent.oid, bytes(sent.dump(values) or b"")


@pytest.mark.parametrize(
    ("ours", "values", "theirs"),
    [
        (apply.uuids, SIXTEENS, [UUID(bytes=value) for value in SIXTEENS]),
        (apply.digests, SIXTEENS, SIXTEENS),
        (apply.texts, ["a", "ключ", "with space"], ["a", "ключ", "with space"]),
    ],
    ids=["uuids", "digests", "texts"],
)
def test_arrays_are_written_as_psycopg_itself_writes_them(
    ours: Callable[[Any], bytes], values: Any, theirs: Any
) -> None:
    oid, written = as_sent(ours(values))

    assert oid == as_sent(theirs)[0]
    assert written == as_sent(theirs)[1]


def test_text_that_no_column_takes_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        apply.texts(["\udfff"])


def test_columns_of_arrays_are_still_written_by_psycopg() -> None:
    found = psycopg.adapters.get_dumper_by_oid(apply.Texts.type_oid, psycopg.pq.Format.BINARY)

    assert issubclass(found, ListBinaryDumper)
