"""OFX 1 (SGML) and OFX 2 (XML), and QFX, which is OFX: bank, card and investment statements.

The models of ofxtools are not used: they refuse a whole file for one bad field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from xml.etree.ElementTree import Element

from worker.errors import BadRecord, Refused
from worker.integrations.kit import money
from worker.integrations.kit.words import by_word, first_within
from worker.integrations.statement_files import values
from worker.integrations.statement_files.statements import Row, Statement
from worker.integrations.statement_files.trees import amount_of, amount_or_none, day_of, of_sgml, text_of
from worker.models.records import HoldingRecord, SecurityRecord
from worker.models.vocabulary import AccountType, SecurityType, TransactionType

NAME = "OFX"

_TEXTS = (
    "ACCTID ACCTKEY ACCTTYPE BALAMT BANKID BRANCHID CHECKNUM CURDEF DTASOF DTEND DTPOSTED DTSTART DTUSER FID FITID"
    " LANGUAGE MEMO NAME ORG PAYEEID REFNUM SERVERTID SIC TRNAMT TRNTYPE TRNUID"
)
_ENDED_BY = {"BANKTRANLIST": "LEDGERBAL"}  # Nubank leaves out the end of the list
_TYPES = {
    "CHECKING": (AccountType.DEPOSITORY, "checking"),
    "SAVINGS": (AccountType.DEPOSITORY, "savings"),
    "MONEYMRKT": (AccountType.DEPOSITORY, "money_market"),
    "CREDITLINE": (AccountType.LOAN, "line_of_credit"),
}
_KINDS = by_word(
    (TransactionType.INCOME, "INT DIV"),
    (TransactionType.FEE, "FEE SRVCHG"),
    (TransactionType.TRANSFER, "XFER ATM CASH DIRECTDEP DEP"),
    (TransactionType.PAYMENT, "PAYMENT POS CHECK DIRECTDEBIT"),
)
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
    root = of_sgml(text[begin.start() :], NAME, frozenset(_TEXTS.split()), _ENDED_BY)
    securities = dict(_securities(root))
    tags = ("STMTRS", "CCSTMTRS", "INVSTMTRS")
    return [_statement(element, securities) for tag in tags for element in root.iter(tag)]


def _statement(element: Element, securities: dict[str, SecurityRecord]) -> Statement:
    try:
        code = values.currency(text_of(element, "CURDEF"))
    except BadRecord:
        raise Refused("a statement of the file names no currency, and none is guessed; nothing was stored") from None
    number = text_of(element, *_NUMBERS)
    if number is None:
        raise Refused("a statement of the file has no account number; nothing was stored")
    bank = text_of(element, "BANKACCTFROM/BANKID", "INVACCTFROM/BROKERID") or ""
    one = Statement(bank=bank, number="".join(number.split()), currency=code)
    if element.tag == "STMTRS":
        one.type, one.subtype = _TYPES.get(text_of(element, "BANKACCTFROM/ACCTTYPE") or "", (one.type, one.subtype))
    elif element.tag == "CCSTMTRS":
        one.type, one.subtype = AccountType.CREDIT, "credit_card"
    else:
        one.type, one.subtype = AccountType.INVESTMENT, "brokerage"
        one.holdings = []
    _read_rows(one, element, securities)
    _read_balances(one, element)
    return one


def _read_rows(one: Statement, element: Element, securities: dict[str, SecurityRecord]) -> None:
    lists = [*element.iterfind("BANKTRANLIST"), *element.iterfind("INVTRANLIST")]
    for listing in lists[:1]:
        one.first, one.last = _day_or_none(listing, "DTSTART"), _day_or_none(listing, "DTEND")
        trades = [found for found in listing if found.find(".//INVTRAN") is not None]
        for number, row in enumerate([*listing.iter("STMTTRN"), *trades], start=1):
            fields = {name: row.findtext(name) for name in ("TRNTYPE", "DTPOSTED", "TRNAMT", "NAME", "MEMO")}
            with one.refusing(f"transaction {number}", **fields):
                is_trade = row.tag != "STMTTRN"
                one.rows.append(_trade(row, one.currency, securities) if is_trade else _row(row, one.currency))
    for position in element.iterfind("INVPOSLIST//INVPOS"):
        with one.refusing("a position"):
            one.holdings = [*(one.holdings or ()), _holding(position, one.currency, securities)]


def _read_balances(one: Statement, element: Element) -> None:
    for tag, field in (("LEDGERBAL", "closing"), ("AVAILBAL", "available")):
        with one.refusing(tag):
            if text_of(element, f"{tag}/BALAMT") is not None:
                amount = amount_of(element, f"{tag}/BALAMT")
                one.closed_on = one.closed_on or day_of(element, f"{tag}/DTASOF")
                setattr(one, field, amount)
    one.closed_on = one.closed_on or _day_or_none(element, "DTASOF")


def _row(element: Element, code: str) -> Row:
    word, own = text_of(element, "TRNTYPE"), text_of(element, "CURRENCY/CURSYM")
    name, memo = text_of(element, "NAME", "PAYEE/NAME"), text_of(element, "MEMO")
    return Row(
        amount=amount_of(element, "TRNAMT"),
        day=day_of(element, "DTPOSTED"),
        currency=code if own is None else values.currency(own),
        ref=text_of(element, "FITID") or "",
        description=" ".join(dict.fromkeys(filter(None, (name, memo)))) or None,
        counterparty=name,
        kind=_KINDS.get(word or "", TransactionType.OTHER),
        word=word,
    )


def _trade(element: Element, code: str, securities: dict[str, SecurityRecord]) -> Row:
    security = securities.get(text_of(element, ".//SECID/UNIQUEID") or "")
    return Row(
        amount=amount_or_none(element, ".//TOTAL") or money.ZERO,
        day=day_of(element, ".//INVTRAN/DTTRADE"),
        currency=code,
        ref=text_of(element, ".//INVTRAN/FITID") or "",
        description=text_of(element, ".//INVTRAN/MEMO") or (security.name if security else None),
        kind=first_within(element.tag, _TRADES, otherwise=TransactionType.OTHER),
        word=element.tag,
    )


def _securities(root: Element) -> Iterator[tuple[str, SecurityRecord]]:
    for element in root.iterfind(".//SECLIST/*"):
        type_, id_ = text_of(element, "SECINFO/SECID/UNIQUEIDTYPE"), text_of(element, "SECINFO/SECID/UNIQUEID")
        if id_ is None:
            continue
        scheme = (type_ or "").lower()
        record = SecurityRecord(
            key=f"{scheme}:{id_}" if scheme in ("cusip", "isin") else f"statement_files:{scheme}:{id_}",
            type=_SECURITIES.get(element.tag, SecurityType.OTHER),
            symbol=text_of(element, "SECINFO/TICKER"),
            name=text_of(element, "SECINFO/SECNAME"),
            cusip=id_ if scheme == "cusip" else None,
            isin=id_ if scheme == "isin" else None,
        )
        yield id_, record


def _holding(element: Element, code: str, securities: dict[str, SecurityRecord]) -> HoldingRecord:
    security = securities.get(text_of(element, "SECID/UNIQUEID") or "")
    if security is None:
        raise BadRecord("security_unknown")
    return HoldingRecord(
        account_key="",
        holding_key=f"{security.key}:{(text_of(element, 'POSTYPE') or 'LONG').lower()}",
        security=security,
        quantity=amount_of(element, "UNITS"),
        market_value=amount_or_none(element, "MKTVAL"),
        price=amount_or_none(element, "UNITPRICE"),
        currency=code,
    )


def _day_or_none(element: Element, path: str) -> date | None:
    try:
        return day_of(element, path)
    except BadRecord:
        return None
