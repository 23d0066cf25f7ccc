"""CAMT.052, .053 and .054 (ISO 20022) in all versions: reports, statements and notifications of bank accounts.

Versions differ in their namespace and in a few elements, which are all looked for.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from xml.etree.ElementTree import Element

from worker.errors import BadRecord, Refused
from worker.integrations.kit import money
from worker.integrations.statement_files import values
from worker.integrations.statement_files.statements import Row, Statement
from worker.integrations.statement_files.trees import amount_of, day_or_none, of_xml, text_of
from worker.models.vocabulary import AccountType

NAME = "CAMT"

_IS_ONE = re.compile(rb"camt\.05[234]\.\d{3}\.\d\d|<(?:\w+:)?BkToCstmr(?:Stmt|AcctRpt|DbtCdtNtfctn)\b")
_STATEMENTS = ("BkToCstmrStmt/Stmt", "BkToCstmrAcctRpt/Rpt", "BkToCstmrDbtCdtNtfctn/Ntfctn")
_CLOSING, _OPENING, _AVAILABLE = ("CLBD", "ITBD"), ("OPBD", "PRCD"), ("CLAV", "ITAV")


def is_one(content: bytes) -> bool:
    """Whether a file looks like CAMT."""
    return _IS_ONE.search(content[:8192]) is not None


def read(content: bytes) -> list[Statement]:
    """The statements of a file.

    Raises:
        Refused: the file is cut off or is no XML, has entities, or has a statement without account or currency.
    """
    root = of_xml(content, NAME)
    return [_statement(element) for path in _STATEMENTS for element in root.iterfind(path)]


def _statement(element: Element) -> Statement:
    iban, other = text_of(element, "Acct/Id/IBAN"), text_of(element, "Acct/Id/Othr/Id")
    number = "".join((iban or other or "").split())
    if not number:
        raise Refused("a statement of the file has no account number; nothing was stored")
    money_of = next((found.get("Ccy") for found in element.iterfind("Bal/Amt")), None)
    entries = element.findall("Ntry")
    first = next((found.get("Ccy") for found in element.iterfind("Ntry/Amt")), None)
    try:
        code = values.currency(text_of(element, "Acct/Ccy") or money_of or first)
    except BadRecord:
        raise Refused("a statement of the file names no currency, and none is guessed; nothing was stored") from None
    bank = "" if iban else text_of(element, "Acct/Svcr/FinInstnId/BICFI", "Acct/Svcr/FinInstnId/BIC") or ""
    one = Statement(bank=bank, number=number, currency=code, type=AccountType.DEPOSITORY, subtype="account")
    with one.refusing("days of the statement"):
        one.first, one.last = day_or_none(element, "FrToDt/FrDtTm"), day_or_none(element, "FrToDt/ToDtTm")
    # A notification has single entries; a report that does not state its days may have what is new alone.
    one.lists_all = element.tag == "Stmt" or (element.tag == "Rpt" and None not in (one.first, one.last))
    one.is_final = element.tag == "Stmt"
    _read_balances(one, element)
    for place, entry in enumerate(entries, start=1):
        if text_of(entry, "Sts/Cd", "Sts") == "INFO":  # for information: not booked and never will be
            continue
        fields = {"amount": entry.findtext("Amt"), "description": entry.findtext("AddtlNtryInf")}
        with one.refusing(f"entry {place}", **fields):
            one.rows.append(_row(entry, code, one.last or one.closed_on))
    return one


def _read_balances(one: Statement, element: Element) -> None:
    stated: dict[str, tuple[Decimal, date | None]] = {}
    for balance in element.iterfind("Bal"):
        kind = text_of(balance, "Tp/CdOrPrtry/Cd") or ""
        with one.refusing(f"balance {kind}"):
            if any(given.get("Ccy") != one.currency for given in balance.iterfind("Amt")):
                raise BadRecord("currency_differs")
            found = _signed(balance), day_or_none(balance, "Dt/Dt", "Dt/DtTm")
            stated.setdefault(kind, found)
    for kind in reversed(_CLOSING):
        one.closing, one.closed_on = stated.get(kind, (one.closing, one.closed_on))
    if "CLBD" in stated:  # an interim balance need not be that after the last entry
        one.opening = next((stated[kind][0] for kind in _OPENING if kind in stated), None)
    one.available = next((stated[kind][0] for kind in _AVAILABLE if kind in stated), None)


def _row(entry: Element, code: str, last: date | None) -> Row:
    given = entry.find("Amt")
    own = None if given is None else given.get("Ccy")
    amount, pending = _signed(entry), text_of(entry, "Sts/Cd", "Sts") in ("PDNG", "FUTR")
    booked, valued = day_or_none(entry, "BookgDt/Dt", "BookgDt/DtTm"), day_or_none(entry, "ValDt/Dt", "ValDt/DtTm")
    day = booked or valued or (last if pending else None)
    if day is None:
        raise BadRecord("date_missing")
    details = entry.findall("NtryDtls/TxDtls")
    detail = details[0] if len(details) == 1 else entry
    who = "Dbtr" if amount > 0 else "Cdtr"
    told = [found.text for found in detail.iterfind("RmtInf/Ustrd")]
    words = values.text(" ".join(filter(None, told))) or text_of(detail, "AddtlTxInf") or text_of(entry, "AddtlNtryInf")
    return Row(
        amount=amount,
        day=day,
        currency=values.currency(own) if own else code,
        ref=text_of(entry, "AcctSvcrRef", "NtryRef") or text_of(detail, "Refs/AcctSvcrRef", "Refs/TxId") or "",
        description=words or (f"{len(details)} payments" if len(details) > 1 else None),
        counterparty=text_of(detail, f"RltdPties/{who}/Nm", f"RltdPties/{who}/Pty/Nm"),
        word=text_of(entry, "BkTxCd/Domn/Fmly/SubFmlyCd", "BkTxCd/Prtry/Cd"),
        valued=valued,
        pending=pending,
    )


def _signed(element: Element) -> Decimal:
    """The amount with its sign. That of a reversal is its own: a credit that reverses a debit is money in."""
    side, text = text_of(element, "CdtDbtInd"), text_of(element, "Amt") or ""
    if side not in ("CRDT", "DBIT"):
        raise BadRecord("side_unknown")
    if text.startswith(("-", "+")) or "," in text:
        raise BadRecord("amount_unreadable")
    amount = amount_of(element, "Amt")
    return amount if side == "CRDT" else money.negated(amount)
