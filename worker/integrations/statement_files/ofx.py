"""OFX 1 (SGML) and OFX 2 (XML), and QFX, which is OFX: bank, card and investment statements.

The tree is built by ofxtools. Its models are not used: they refuse a whole file for one bad field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from html import unescape
from xml.etree.ElementTree import Element

from worker.errors import BadRecord, Refused
from worker.integrations.kit import money
from worker.integrations.statement_files import values
from worker.integrations.statement_files.ofx_tree import tree
from worker.integrations.statement_files.statements import Row, Statement, reject
from worker.models.records import HoldingRecord, SecurityRecord
from worker.models.vocabulary import AccountType, SecurityType, TransactionType

NAME = "OFX"

_DAY = re.compile(r"\s*(\d{4})(\d\d)(\d\d)")
_TYPES = {
    "CHECKING": (AccountType.DEPOSITORY, "checking"),
    "SAVINGS": (AccountType.DEPOSITORY, "savings"),
    "MONEYMRKT": (AccountType.DEPOSITORY, "money_market"),
    "CREDITLINE": (AccountType.LOAN, "line_of_credit"),
}
_KINDS = {
    **dict.fromkeys(("INT", "DIV"), TransactionType.INCOME),
    **dict.fromkeys(("FEE", "SRVCHG"), TransactionType.FEE),
    **dict.fromkeys(("XFER", "ATM", "CASH", "DIRECTDEP", "DEP"), TransactionType.TRANSFER),
    **dict.fromkeys(("PAYMENT", "POS", "CHECK", "DIRECTDEBIT"), TransactionType.PAYMENT),
}
_SECURITIES = {
    "STOCKINFO": SecurityType.EQUITY,
    "MFINFO": SecurityType.MUTUAL_FUND,
    "DEBTINFO": SecurityType.FIXED_INCOME,
    "OPTINFO": SecurityType.OPTION,
}
_TRADES = (
    ("REINVEST", TransactionType.REINVESTMENT),
    ("BUY", TransactionType.TRADE),
    ("SELL", TransactionType.TRADE),
    ("INCOME", TransactionType.INCOME),
)
_NUMBERS = ("BANKACCTFROM/ACCTID", "CCACCTFROM/ACCTID", "INVACCTFROM/ACCTID")


def is_one(content: bytes) -> bool:
    """Whether a file looks like OFX."""
    return b"<OFX>" in content[:8192].upper()


def read(content: bytes) -> list[Statement]:
    """The statements of a file.

    Raises:
        Refused: the file is cut off or is no OFX; or it has no statement.
    """
    text = values.decoded(content)
    begin = re.search("<OFX>", text, re.IGNORECASE)
    if begin is None or not text.rstrip().upper().endswith("</OFX>"):
        raise Refused("the OFX file ends too early: download it again; nothing was stored")
    root = tree(text[begin.start() :])
    securities = dict(_securities(root))
    tags = ("STMTRS", "CCSTMTRS", "INVSTMTRS")
    return [_statement(element, securities) for tag in tags for element in root.iter(tag)]


def _statement(element: Element, securities: dict[str, SecurityRecord]) -> Statement:
    try:
        code = values.currency(_text(element, "CURDEF"))
    except BadRecord:
        raise Refused("a statement of the file names no currency, and none is guessed; nothing was stored") from None
    number = next((found for path in _NUMBERS if (found := _text(element, path))), None)
    if number is None:
        raise Refused("a statement of the file has no account number; nothing was stored")
    bank = _text(element, "BANKACCTFROM/BANKID") or _text(element, "INVACCTFROM/BROKERID") or ""
    one = Statement(bank=bank, number="".join(number.split()), currency=code)
    if element.tag == "STMTRS":
        one.type, one.subtype = _TYPES.get(_text(element, "BANKACCTFROM/ACCTTYPE") or "", (one.type, one.subtype))
    elif element.tag == "CCSTMTRS":
        one.type, one.subtype = AccountType.CREDIT, "credit_card"
    else:
        one.type, one.subtype = AccountType.INVESTMENT, "brokerage"
        one.holdings = []
    _read_rows(one, element, securities)
    _read_balances(one, element)
    return one


def _read_rows(one: Statement, element: Element, securities: dict[str, SecurityRecord]) -> None:
    listing = element.find("BANKTRANLIST")
    listing = element.find("INVTRANLIST") if listing is None else listing
    if listing is not None:
        one.first, one.last = _day_or_none(listing, "DTSTART"), _day_or_none(listing, "DTEND")
    trades = [found for found in listing if found.find(".//INVTRAN") is not None] if listing is not None else []
    for number, row in enumerate([*(listing.iter("STMTTRN") if listing is not None else ()), *trades], start=1):
        try:
            one.rows.append(_row(row, one.currency) if row.tag == "STMTTRN" else _trade(row, one.currency, securities))
        except BadRecord as error:
            fields = {name: _text(row, name) for name in ("TRNTYPE", "DTPOSTED", "TRNAMT", "NAME", "MEMO")}
            one.rejects.append(reject(error.reason, f"transaction {number} of account …{one.mask}", **fields))
    for position in element.iterfind("INVPOSLIST//INVPOS"):
        try:
            one.holdings = [*(one.holdings or ()), _holding(position, one.currency, securities)]
        except BadRecord as error:
            one.rejects.append(reject(error.reason, f"a position of account …{one.mask}"))


def _read_balances(one: Statement, element: Element) -> None:
    for tag, field in (("LEDGERBAL", "closing"), ("AVAILBAL", "available")):
        try:
            if (stated := _text(element, f"{tag}/BALAMT")) is not None:
                setattr(one, field, money.checked(values.amount(stated), "amount"))
                one.closed_on = one.closed_on or _day(element, f"{tag}/DTASOF")
        except BadRecord as error:
            one.rejects.append(reject(error.reason, f"{tag} of account …{one.mask}"))
            setattr(one, field, None)
    one.closed_on = one.closed_on or _day_or_none(element, "DTASOF")


def _row(element: Element, code: str) -> Row:
    if (own := _text(element, "CURRENCY/CURSYM")) is not None:
        code = values.currency(own)
    word, memo = _text(element, "TRNTYPE"), _text(element, "MEMO")
    name = _text(element, "NAME") or _text(element, "PAYEE/NAME")
    return Row(
        amount=_amount(element, "TRNAMT"),
        day=_day(element, "DTPOSTED"),
        currency=code,
        ref=_text(element, "FITID") or "",
        description=" ".join(dict.fromkeys(filter(None, (name, memo)))) or None,
        counterparty=name,
        kind=_KINDS.get(word or "", TransactionType.OTHER),
        word=word,
    )


def _trade(element: Element, code: str, securities: dict[str, SecurityRecord]) -> Row:
    security = securities.get(_text(element, ".//SECID/UNIQUEID") or "")
    return Row(
        amount=_amount(element, ".//TOTAL") if element.find(".//TOTAL") is not None else money.ZERO,
        day=_day(element, ".//INVTRAN/DTTRADE"),
        currency=code,
        ref=_text(element, ".//INVTRAN/FITID") or "",
        description=_text(element, ".//INVTRAN/MEMO") or (security.name if security else None),
        kind=next((kind for word, kind in _TRADES if word in element.tag), TransactionType.OTHER),
        word=element.tag,
    )


def _securities(root: Element) -> Iterator[tuple[str, SecurityRecord]]:
    for element in root.iterfind(".//SECLIST/*"):
        type_, id_ = _text(element, "SECINFO/SECID/UNIQUEIDTYPE"), _text(element, "SECINFO/SECID/UNIQUEID")
        if id_ is None:
            continue
        scheme = (type_ or "").lower()
        record = SecurityRecord(
            key=f"{scheme}:{id_}" if scheme in ("cusip", "isin") else f"statement_files:{scheme}:{id_}",
            type=_SECURITIES.get(element.tag, SecurityType.OTHER),
            symbol=_text(element, "SECINFO/TICKER"),
            name=_text(element, "SECINFO/SECNAME"),
            cusip=id_ if scheme == "cusip" else None,
            isin=id_ if scheme == "isin" else None,
        )
        yield id_, record


def _holding(element: Element, code: str, securities: dict[str, SecurityRecord]) -> HoldingRecord:
    security = securities.get(_text(element, "SECID/UNIQUEID") or "")
    if security is None:
        raise BadRecord("security_unknown")
    return HoldingRecord(
        account_key="",
        holding_key=f"{security.key}:{(_text(element, 'POSTYPE') or 'LONG').lower()}",
        security=security,
        quantity=_amount(element, "UNITS"),
        market_value=_amount(element, "MKTVAL") if element.find("MKTVAL") is not None else None,
        price=_amount(element, "UNITPRICE") if element.find("UNITPRICE") is not None else None,
        currency=code,
    )


def _amount(element: Element, path: str) -> Decimal:
    return money.checked(values.amount(_text(element, path) or ""), "amount")


def _text(element: Element, path: str) -> str | None:
    return values.text(unescape(element.findtext(path) or ""))


def _day(element: Element, path: str) -> date:
    return values.leading_day(_DAY, _text(element, path))


def _day_or_none(element: Element, path: str) -> date | None:
    try:
        return _day(element, path)
    except BadRecord:
        return None
