"""Reading pages of records so that one bad record never costs the page.

A page is decoded twice, both times in C: once into the raw text of each record, once into its ids. Records are read
in full only when somebody asks for one (`map_transaction`), because an unchanged record is never read. Only a page that
the decoder refuses is looked through token by token (`json_text`).

Repairs are made on the JSON text itself, so that records without a fault keep their exact bytes and therefore their
hash: literals that JSON does not know (`NaN`) become strings, which no amount accepts; lone surrogates become U+FFFD.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from worker.errors import BadPayload, BadRecord
from worker.integrations.kit import json_text
from worker.integrations.kit.base import RawRecord
from worker.integrations.kit.masking import masked
from worker.models.records import HoldingRecord, Reject

T = TypeVar("T")

_STRING_OR_LITERAL = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b', re.DOTALL)
_SURROGATE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)"
)
_ESCAPE = re.compile(rb"\\(?:u0000|.)")
_REPLACEMENT = rb"\ufffd"
_PATH = re.compile(r"`\$\.?([^`]*)`$|required field `([^`]*)`")


class Reader(Generic[T]):
    """Decodes one shape of answer or record.

    Args:
        shape: a msgspec type; unknown fields are ignored, numbers become exact `Decimal`s.
    """

    def __init__(self, shape: type[T]) -> None:
        self.decode = msgspec.json.Decoder(shape).decode

    def page(self, body: bytes) -> T:
        """An answer.

        Raises:
            BadPayload: not UTF-8, not JSON after repairs, or of another shape.
        """
        try:
            if not body.isascii():
                body.decode()
            return self.decode(body)
        except UnicodeDecodeError:
            raise BadPayload("not_utf8") from None
        except RecursionError:
            shallow = json_text.shallow(body)
            if shallow == body:
                raise BadPayload("nested_too_deep") from None
            return self.page(shallow)
        except msgspec.ValidationError as error:
            raise BadPayload(f"unexpected_shape:{_field(error) or 'page'}") from None
        except msgspec.DecodeError:
            mended = mend(body)
            if mended == body:
                raise BadPayload("not_json") from None
            return self.page(mended)

    def record(self, raw: bytes | msgspec.Raw) -> T:
        """One record.

        Raises:
            BadRecord: `<field>_missing`, `<field>_unreadable`, `nested_too_deep` or `unreadable`.
        """
        try:
            return self.decode(raw)
        except msgspec.ValidationError as error:
            if json_text.TOO_DEEP in bytes(raw):
                raise BadRecord("nested_too_deep") from None
            field = _field(error)
            if not field:
                raise BadRecord("not_an_object") from None
            raise BadRecord(f"{field}_{'missing' if 'missing' in str(error) else 'unreadable'}") from None
        except RecursionError:
            raise BadRecord("nested_too_deep") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise BadRecord("unreadable") from None


def _field(error: msgspec.ValidationError) -> str:
    found = _PATH.search(str(error))
    return (found[1] or found[2] or "") if found else ""


def mend(body: bytes) -> bytes:
    """JSON text whose only faults were literals JSON does not know and surrogates without a partner, mended."""

    def mended(match: re.Match[bytes]) -> bytes:
        token = match[0]
        if token[:1] != b'"':
            return b'"' + token + b'"'
        return _SURROGATE.sub(_without_lone_surrogate, token) if b"\\u" in token else token

    return _STRING_OR_LITERAL.sub(mended, body)


def _without_lone_surrogate(match: re.Match[bytes]) -> bytes:
    escape = match[0]
    return _REPLACEMENT if len(escape) == 6 and escape[2:3] in b"dD" else escape


def cleaned(raw: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The same as `repaired`, of a record that was read to its depth.

    Raises:
        BadRecord: it was not.
    """
    if b"\\" not in raw:
        return raw, ()
    if json_text.TOO_DEEP in raw:
        raise BadRecord("nested_too_deep")
    return repaired(raw)


def repaired(raw: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The record without NUL characters, which Postgres cannot store, and what was repaired in it.

    `text_replaced` is also set where the provider itself sent an escaped U+FFFD: something was lost either way.
    """
    flags: list[str] = []
    if b"\\u0000" in raw:
        stripped = _ESCAPE.sub(lambda match: b"" if match[0] == b"\\u0000" else match[0], raw)
        if stripped != raw:
            raw = stripped
            flags.append("nul_stripped")
    if _REPLACEMENT in raw:
        flags.append("text_replaced")
    return raw, tuple(flags)


@dataclass(slots=True)
class Split:
    """A page's transactions, unread, and those that even their ids cannot be read of."""

    rows: list[RawRecord]
    rejects: list[Reject]


_record: Callable[[Iterable[object]], RawRecord] = partial(tuple.__new__, RawRecord)


def raw_records(keys: Iterable[str], account_keys: Iterable[str], raws: Iterable[msgspec.Raw]) -> list[RawRecord]:
    """Rows from their columns; a million a second, since no Python code runs per row."""
    return list(map(_record, zip(keys, account_keys, map(bytes, raws), strict=True)))


def split(raws: Sequence[msgspec.Raw], key_of: Callable[[msgspec.Raw], tuple[str, str]]) -> Split:
    """Splits row by row; for pages in which some row's ids cannot be read.

    Args:
        raws: the rows' JSON texts.
        key_of: reads transaction id and account id; raises `BadRecord`.
    """
    rows: list[RawRecord] = []
    rejects: list[Reject] = []
    for raw in raws:
        try:
            key, account_key = key_of(raw)
        except Exception as error:
            rejects.append(reject("transaction", BadRecord.of(error), bytes(raw)))
        else:
            rows.append(RawRecord(without_nul(key), without_nul(account_key), bytes(raw)))
    return Split(rows, rejects)


_content = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode


def fingerprint(raw: msgspec.Raw, seen: Counter[str], *, without: str) -> str:
    """A key made of a row's content, for rows that their provider gives no id, as some do with pending ones.

    The order of fields and the space between them do not matter. Equal rows of one page are told apart by their number.

    Args:
        raw: the row.
        seen: fingerprints given on this page so far.
        without: a field that is left out: the account's number, which could be guessed from a digest of it.

    Raises:
        BadRecord: not an object of JSON.
    """
    try:
        content = _content(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRecord("unreadable") from None
    content.pop(without, None)
    key = f"content:{hashlib.blake2b(msgspec.json.encode(content, order='sorted'), digest_size=16).hexdigest()}"
    seen[key] += 1
    return key if seen[key] == 1 else f"{key}:{seen[key]}"


def reject(
    kind: str, error: BadRecord, raw: bytes, *, account_key: str | None = None, record_key: str | None = None
) -> Reject:
    """A record on its way to quarantine, masked."""
    return Reject(kind=kind, reason=error.reason, account_key=account_key, record_key=record_key, payload=masked(raw))


def without_nul(text: str) -> str:
    """`text` as Postgres can store it."""
    return text.replace("\x00", "") if "\x00" in text else text


def read_all(
    raws: Sequence[msgspec.Raw], kind: str, read: Callable[[bytes], Any], account_key: str | None = None
) -> tuple[list[Any], list[Reject]]:
    """Reads every record of a short list, bad ones apart.

    Args:
        raws: the records' JSON texts.
        kind: word for `Reject.kind`.
        read: reads one cleaned record; whatever it raises is that record's.
        account_key: whose records they are, if known.
    """

    def checked(raw: bytes) -> Any:
        text, _ = cleaned(raw)
        json_text.check_all_keys_once(text)
        return read(text)

    return read_each(raws, kind, checked, account_key)


def read_each(
    raws: Sequence[msgspec.Raw], kind: str, read: Callable[[bytes], Any], account_key: str | None = None
) -> tuple[list[Any], list[Reject]]:
    """The same for records that have records of their own: what is wrong with one of those must not cost the whole.

    `read` gets the text as it came.
    """
    good: list[Any] = []
    rejects: list[Reject] = []
    for raw in map(bytes, raws):
        try:
            good.append(read(raw))
        except Exception as error:
            rejects.append(reject(kind, BadRecord.of(error), raw, account_key=account_key))
    return good, rejects


def distinct(holdings: Sequence[HoldingRecord]) -> list[HoldingRecord]:
    """Positions with a key each: a provider may list one security twice in an account, lot by lot."""
    seen: dict[tuple[str, str], int] = {}
    result = []
    for holding in holdings:
        key = (holding.account_key, holding.holding_key)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] > 1:
            holding = msgspec.structs.replace(holding, holding_key=f"{holding.holding_key}:{seen[key]}")
        result.append(holding)
    return result


def has_nul(body: bytes) -> bool:
    """Whether some text of the page may hold a NUL character."""
    return b"\\" in body and b"\\u0000" in body  # the search for one byte is far faster
