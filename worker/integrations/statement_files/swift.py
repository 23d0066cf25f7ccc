"""MT940 and MT942 (SWIFT): statements and interim reports of bank accounts, taken apart by the library mt-940.

The library reads each entry alone, so that a bad one costs nothing else. It takes `1.2.3` for 1 and logs what it cannot
read: so the amount is checked before, and the library logs nothing.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import mt940
from mt940.models import Transactions
from mt940.options import Options
from mt940.tags import StatementASNB, Tag

from worker.errors import BadRecord, Refused
from worker.integrations.kit import money
from worker.integrations.statement_files import values
from worker.integrations.statement_files.statements import Row, Statement, reject
from worker.models.vocabulary import AccountType

NAME = "MT940"

_TAG = re.compile(r"^:(\d\d[A-Z]?):", re.MULTILINE)
# An amount has 15 characters at most: of a longer one, the library would take the beginning.
_ENTRY = re.compile(r"\d{6}(?:\d{4}| {4})?(?:R?[DC])[A-Z]?\s?(?=[\d,]{1,15}[A-Z])\d+(?:,\d*)?[A-Z]", re.IGNORECASE)
_BALANCE = re.compile(r"([DC]\d{6}(?:[A-Z]{3})?)0*(?=[\d,]{1,16}$)(\d+(?:,\d*)?)", re.IGNORECASE)
_BALANCES = ("60F", "60M", "62F", "62M", "64", "65")
_NO_REFERENCE = ("", "NONREF")
_CURRENCY = re.compile(r"[ /]?[A-Z]{3}$")

logging.getLogger("mt940").setLevel(logging.CRITICAL + 1)


def is_one(content: bytes) -> bool:
    """Whether a file looks like MT940 or MT942."""
    head = content[:8192]
    return all(re.search(tag, head, re.MULTILINE) for tag in (rb"^:20:", rb"^:25[A-Z]?:", rb"^:(?:60[FM]|34F):"))


def read(content: bytes) -> list[Statement]:
    """The statements of a file.

    Raises:
        Refused: the file is cut off, or a statement has no account or no currency.
    """
    text = values.decoded(content).replace("\r\n", "\n").replace("\r", "\n")
    starts = [found.start() for found in re.finditer(r"^:20:", text, re.MULTILINE)]
    return [_statement(text[begin:end]) for begin, end in zip(starts, [*starts[1:], len(text)], strict=True)]


def _statement(text: str) -> Statement:
    tags = list(_fields(text))
    names = [name for name, _ in tags]
    if not {"62F", "62M"} & set(names) and "34F" not in names:
        raise Refused("the MT940 file has a statement without closing balance: it may be cut off; nothing was stored")
    try:
        head = "".join(f":{name}:{_checked(name, value)}\n" for name, value in tags if name not in ("61", "86"))
        parsed = _parsed(head)
        data = parsed.data
        code = values.currency(parsed.currency or next((value[:3] for name, value in tags if name == "34F"), None))
    except BadRecord:
        told = "a statement of the file has a balance that cannot be read, or no currency; nothing was stored"
        raise Refused(told) from None
    number = "".join(_CURRENCY.sub("", str(data.get("account_identification") or "")).split())
    if not number:
        raise Refused("a statement of the file has no account number; nothing was stored")
    one = Statement(bank="", number=number, currency=code, type=AccountType.DEPOSITORY, subtype="account")
    _read_balances(one, data)
    for place, entry in enumerate(_entries(tags), start=1):
        with one.refusing(f"entry {place}", description=entry):
            one.rows.append(_row(entry, code))
    return one


def _fields(text: str) -> Iterator[tuple[str, str]]:
    """Tags and their texts, without the lines that are not a part of any."""
    found = list(_TAG.finditer(text))
    for tag, end in zip(found, [*(tag.start() for tag in found[1:]), len(text)], strict=True):
        yield tag[1], text[tag.end() : end].partition("\n-")[0].strip("\n")


def _checked(name: str, value: str) -> str:
    """The text of a tag. That of a balance has no zeros before its amount: some banks write more than fit."""
    if name not in _BALANCES:
        return value
    found = _BALANCE.fullmatch(value.strip())
    if found is None:
        raise BadRecord("balance_unreadable")
    return found[1] + found[2]


def _entries(tags: list[tuple[str, str]]) -> Iterator[str]:
    """The text of each entry, with what is told about it."""
    for at, (name, value) in enumerate(tags):
        if name == "61":
            told = tags[at + 1][1] if at + 1 < len(tags) and tags[at + 1][0] == "86" else ""
            yield f":61:{value}\n:86:{told}\n"


def _read_balances(one: Statement, data: dict[str, Any]) -> None:
    opening = data.get("final_opening_balance") or data.get("intermediate_opening_balance")
    closing = data.get("final_closing_balance") or data.get("intermediate_closing_balance")
    available = data.get("available_balance")
    if any(stated and stated.amount.currency != one.currency for stated in (opening, closing, available)):
        one.rejects.append(reject("currency_differs", f"balances of account …{one.mask}"))
        return
    one.opening = opening.amount.amount if opening else None
    one.closing, one.closed_on = (closing.amount.amount, _day(closing.date)) if closing else (None, None)
    one.available = available.amount.amount if available else None


def _row(entry: str, code: str) -> Row:
    if not _ENTRY.match(entry.removeprefix(":61:")):
        raise BadRecord("entry_unreadable")
    # The library takes the currency of an entry from the statement; this one has no other part.
    alone = f":20:X\n:60F:C000101{code}0,\n{entry}"
    try:
        found = _parsed(alone)
    except BadRecord:  # ASN has references that are longer than the standard allows
        found = _parsed(alone, {61: StatementASNB()})
    if len(found) != 1:
        raise BadRecord("entry_unreadable")
    data = found[0].data
    told = [str(data.get(name) or "") for name in ("purpose", "additional_purpose")]
    words = values.text(" ".join(told)) or values.text(str(data.get("transaction_details") or ""))
    reference = str(data.get("bank_reference") or "").strip()
    valued = _day(data["date"])
    return Row(
        amount=money.checked(data["amount"].amount, "amount"),
        day=_day(data["entry_date"]) if data.get("entry_date") else valued,
        currency=code,
        ref="" if reference.upper() in _NO_REFERENCE else reference,
        description=words or values.text(str(data.get("extra_details") or "")),
        counterparty=values.text(str(data.get("applicant_name") or "")),
        word=values.text(str(data.get("id") or "")),
        valued=valued,
    )


def _parsed(text: str, tags: dict[int | str, Tag] | None = None) -> Transactions:
    try:
        return mt940.parse(io.StringIO(text), tags=tags, options=Options.all())
    except Exception:  # it raises many kinds, and their texts show the file
        raise BadRecord("entry_unreadable") from None


def _day(moment: date) -> date:
    """A day without what the library's own type adds."""
    return date(moment.year, moment.month, moment.day)
