"""Reads pages of records in such a way that one bad record never makes the whole page unreadable.

A page is decoded twice, both times in C: once into the raw text of each record, once into its ids. A record is read in
full only when it is needed (`map_transaction`), because unchanged records need not be read. Only a page that the
decoder refuses is read token by token (`json_text`).

Repairs are made in the JSON text, so that correct records keep their exact bytes and therefore their hash. Literals
that are not JSON (`NaN`) become strings, which are refused as amounts; lone surrogates become U+FFFD.
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
from worker.integrations.kit import json_text, paths
from worker.integrations.kit.base import RawRecord
from worker.integrations.kit.masking import masked
from worker.models.records import HoldingRecord, LiabilityRecord, Reject

T = TypeVar("T")
S = TypeVar("S", HoldingRecord, LiabilityRecord)

_STRING_OR_LITERAL = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b', re.DOTALL)
_SURROGATE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)"
)
_ESCAPE = re.compile(rb"\\(?:u0000|.)")
_REPLACEMENT = rb"\ufffd"
_PATH = re.compile(r"`\$\.?([^`]*)`$|required field `([^`]*)`")


class Reader(Generic[T]):
    """Decodes one type of answer or record.

    Args:
        shape: a msgspec type. Unknown fields are ignored, numbers become exact `Decimal`s, and a field whose name has
            dots is read from inner objects (see `paths`).
    """

    def __init__(self, shape: type[T]) -> None:
        self.decode = paths.decoder(shape)

    def page(self, body: bytes) -> T:
        """Decodes an answer.

        Raises:
            BadPayload: it is not UTF-8, not JSON even after repairs, or not of the expected type.
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

    def row(self, record: RawRecord) -> tuple[T, tuple[str, ...]]:
        """Decodes a transaction, every key of which must be there once, and returns what was repaired in it.

        Raises:
            BadRecord: see `record`, `cleaned` and `json_text.check_all_keys_once`.
        """
        raw, flags = cleaned(record.raw)
        given = self.record(raw)
        json_text.check_all_keys_once(raw)
        return given, flags

    def record(self, raw: bytes | msgspec.Raw) -> T:
        """Decodes one record.

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

    def record_or(self, raw: bytes | msgspec.Raw, otherwise: T) -> T:
        """Like `record`; `otherwise` for what cannot be read."""
        try:
            return self.record(raw)
        except BadRecord:
            return otherwise


class MemberReader(Generic[T]):
    """Takes answers apart that are an object of which one member is used.

    Args:
        member: its name; one with dots leads into inner objects.
        shape: its type. Names of its fields are not followed into inner objects.
    """

    def __init__(self, member: str, shape: type[T]) -> None:
        self._answer = Reader(msgspec.defstruct("Answer", [("member", shape)], rename={"member": member}))

    def page(self, body: bytes) -> T:
        """The member of an answer. Raises `BadPayload`, as `Reader.page`."""
        value: T = self._answer.page(body).member  # type: ignore[attr-defined]
        return value


class ListReader(MemberReader[list[msgspec.Raw]]):
    """Takes answers apart that are an object with a list of records, which are not read yet.

    Args:
        member: the member of the object that has the list.
    """

    def __init__(self, member: str) -> None:
        super().__init__(member, list[msgspec.Raw])


def _field(error: msgspec.ValidationError) -> str:
    found = _PATH.search(str(error))
    return (found[1] or found[2] or "") if found else ""


def mend(body: bytes) -> bytes:
    """Repairs JSON text in which the only faults are literals that are not JSON, and lone surrogates."""

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
    """Like `repaired`, but refuses a record that was nested too deep and was therefore cut.

    Raises:
        BadRecord: the record was cut.
    """
    if raw.find(b"\\") < 0:  # `in` takes twice as long
        return raw, ()
    if json_text.TOO_DEEP in raw:
        raise BadRecord("nested_too_deep")
    return repaired(raw)


def repaired(raw: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The record without NUL characters, which Postgres cannot store, and what was repaired in it.

    The flag `text_replaced` is also set if the provider itself sent an escaped U+FFFD, because then text was lost, too.
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
    """A page's transactions, not yet read, and the rejects: rows whose ids cannot be read."""

    rows: list[RawRecord]
    rejects: list[Reject]


_record: Callable[[Iterable[object]], RawRecord] = partial(tuple.__new__, RawRecord)


def raw_records(keys: Iterable[str], account_keys: Iterable[str], raws: Iterable[msgspec.Raw]) -> list[RawRecord]:
    """Makes rows from columns; about a million per second, because no Python code runs for each row."""
    return list(map(_record, zip(keys, account_keys, map(bytes, raws), strict=True)))


def split(raws: Sequence[msgspec.Raw], key_of: Callable[[msgspec.Raw], tuple[str, str]]) -> Split:
    """Separates rows whose ids can be read from the others, row by row.

    Args:
        raws: the JSON text of each row.
        key_of: reads a row's transaction id and account id; raises `BadRecord`.
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


class _WithId(msgspec.Struct, gc=False):
    id: int | str | None = None


with_id = Reader(_WithId)
"""Reads the member `id` of a row."""


def id_of(raw: msgspec.Raw) -> str | None:
    """The member `id` of a row; None if it has none that can be read."""
    try:
        given = with_id.record(raw).id
    except BadRecord:
        return None
    return None if given in (None, "") else str(given)


def split_by_id(raws: Sequence[msgspec.Raw], account_key: str) -> Split:
    """An account's rows with their ids. One without is rejected (`id_missing`): it could never be withdrawn."""

    def key_of(raw: msgspec.Raw) -> tuple[str, str]:
        if (id_ := id_of(raw)) is None:
            raise BadRecord("id_missing")
        return id_, account_key

    return split(raws, key_of)


_content = msgspec.json.Decoder(dict[str, Any], float_hook=str).decode


def fingerprint(raw: msgspec.Raw, seen: Counter[str], *, without: str) -> str:
    """A key computed from a row's content, for rows without an id of the provider (some pending ones have none).

    The order of fields and the space between them do not matter. Equal rows of one page get different numbers.

    Args:
        raw: the row.
        seen: counts the fingerprints of this page so far.
        without: the field with the account number. It is left out, because the number could be guessed from the digest.

    Raises:
        BadRecord: the row is not a JSON object.
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
    """The masked record for quarantine, with its reason."""
    return Reject(kind=kind, reason=error.reason, account_key=account_key, record_key=record_key, payload=masked(raw))


def without_nul(text: str) -> str:
    """`text` without NUL characters, which Postgres cannot store."""
    return text.replace("\x00", "") if "\x00" in text else text


def read_all(
    raws: Sequence[msgspec.Raw], kind: str, read: Callable[[bytes], Any], account_key: str | None = None
) -> tuple[list[Any], list[Reject]]:
    """Reads every record of a short list, and returns those that could be read and the rejects.

    Args:
        raws: the JSON text of each record.
        kind: the value of `Reject.kind`.
        read: reads one cleaned record; if it raises an error, only this record is rejected.
        account_key: the account to which the records belong, if known.
    """

    def checked(raw: bytes) -> Any:
        text, _ = cleaned(raw)
        json_text.check_all_keys_once(text)
        return read(text)

    return read_each(raws, kind, checked, account_key)


def read_each(
    raws: Sequence[msgspec.Raw], kind: str, read: Callable[[bytes], Any], account_key: str | None = None
) -> tuple[list[Any], list[Reject]]:
    """Like `read_all`, for records that contain other records: a fault in an inner one must not reject the outer one.

    `read` gets the unchanged text.
    """
    good: list[Any] = []
    rejects: list[Reject] = []
    for raw in map(bytes, raws):
        try:
            good.append(read(raw))
        except Exception as error:
            rejects.append(reject(kind, BadRecord.of(error), raw, account_key=account_key))
    return good, rejects


def distinct(records: Sequence[S], *, key: str = "holding_key") -> list[S]:
    """Gives each record its own key within its account: a provider may list a security once for each tax lot."""
    seen: Counter[tuple[str, str]] = Counter()
    result = []
    for record in records:
        own = getattr(record, key)
        seen[record.account_key, own] += 1
        if (times := seen[record.account_key, own]) > 1:
            record = msgspec.structs.replace(record, **{key: f"{own}:{times}"})
        result.append(record)
    return result


def has_nul(body: bytes) -> bool:
    """Whether some text of the page may contain a NUL character."""
    return b"\\" in body and b"\\u0000" in body  # searching for one byte first is far faster
