"""CSV files: what their columns mean is proposed, confirmed by the user, and saved for the next file.

Needed are `date`, `order` (ymd, dmy or mdy), `amount` (or `debit` and `credit`), `decimal` (. or ,), and `currency` and
`account`: a column, or the code and the number themselves. The other words are columns that may be there.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

from worker.errors import BadRecord, Refused
from worker.integrations.kit import money
from worker.integrations.statement_files import values
from worker.integrations.statement_files.statements import Row, Statement, reject
from worker.models.vocabulary import AccountType

NAME = "CSV"

_WORDS = {
    "date": ("booking date", "transaction date", "posted", "buchungstag", "buchungsdatum", "date", "datum", "fecha"),
    "amount": ("amount", "betrag", "umsatz", "importe", "montant", "bedrag"),
    "debit": ("debit", "paid out", "withdrawal", "soll"),
    "credit": ("credit", "paid in", "deposit", "haben"),
    "description": ("description", "verwendungszweck", "details", "narrative", "memo", "purpose", "text"),
    "counterparty": ("payee", "merchant", "counterparty", "name"),
    "ref": ("reference", "transaction id"),
    "currency": ("currency", "währung"),
    "balance": ("balance", "saldo"),
    "account": ("account number", "iban", "account", "konto"),
}
_OPTIONS = {*_WORDS, "order", "decimal"}
_NEEDED = ("date", "order", "decimal", "currency", "account")


class Table:
    """A file as lines with cells, and the meaning of its columns.

    Attributes:
        digest: names the columns; files with the same columns have the same.
    """

    def __init__(self, content: bytes) -> None:
        text = values.decoded(content)
        head = text[:8192]
        self.delimiter = max(",;\t|", key=lambda sign: head.count(sign) if sign != "," else head.count(sign) - 0.5)
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=self.delimiter, strict=True)
            lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
        except csv.Error:
            raise Refused(
                "the CSV file has a quote that is not closed: it may be cut off; nothing was stored"
            ) from None
        width = Counter(len(cells) for _, cells in lines).most_common(1)[0][0]
        begin = next((at for at, (_, cells) in enumerate(lines) if _is_header(cells, width)), None)
        if begin is None:
            raise Refused("the CSV file has no line with the names of its columns; nothing was stored")
        self.names = lines[begin][1]
        self.lines = [(number, cells) for number, cells in lines[begin + 1 :] if any(cells)]
        self.digest = hashlib.blake2b("\0".join(self.names).encode(), digest_size=8).hexdigest()

    def column(self, name: str) -> list[str]:
        """The cells of a column."""
        at = self.names.index(name)
        return [cells[at] if at < len(cells) else "" for _, cells in self.lines]

    def proposal(self) -> dict[str, str]:
        """What the columns seem to mean. What is needed and is not found, or can be read in two ways, is empty."""
        found: dict[str, str] = {}
        for field, words in _WORDS.items():
            ranked = [name for word in words for name in self.names if word in name.lower()]
            if free := [name for name in ranked if name not in found.values()]:
                found[field] = free[0]
        if "amount" in found:
            found = {field: name for field, name in found.items() if field not in ("debit", "credit")}
        if order := values.order_of(self.column(found["date"]) if "date" in found else ()):
            found["order"] = order
        amounts = [
            cell for field in ("amount", "debit", "credit") if field in found for cell in self.column(found[field])
        ]
        if decimal := values.decimal_of(amounts):
            found["decimal"] = decimal
        return found | dict.fromkeys(missing(found), "")


def missing(options: Mapping[str, str]) -> list[str]:
    """What must still be said about a file before it can be read."""
    needed = _NEEDED if "debit" in options and "credit" in options else (*_NEEDED, "amount")
    return [name for name in needed if not options.get(name)]


def is_one(content: bytes) -> bool:
    """Whether a file may be CSV: text with several lines of several cells."""
    lines = [line for line in content[:8192].splitlines() if line.strip()]
    return len(lines) > 1 and any(sum(sign in line for line in lines) > 1 for sign in (b",", b";", b"\t", b"|"))


def read(table: Table, options: Mapping[str, str]) -> list[Statement]:
    """The statements of a file.

    Raises:
        Refused: an option is missing, or names no column.
    """
    _check(table, options)
    found: dict[str, Statement] = {}
    stated: dict[str, list[tuple[Row, Decimal]]] = {}
    rejects = []
    for line, cells in table.lines:
        named = dict(zip(table.names, [*cells, *[""] * len(table.names)], strict=False))
        number = named.get(options["account"], options["account"])
        try:
            if len(cells) < len(table.names) or any(cells[len(table.names) :]):  # cut off, or an amount is elsewhere
                raise BadRecord("cells_do_not_fit")
            row, balance = _row(named, options, values.currency(named.get(options["currency"], options["currency"])))
            one = found.get(number) or found.setdefault(number, _statement(number, row.currency))
        except BadRecord as error:
            rejects.append(reject(error.reason, f"line {line}", **named))
            continue
        one.rows.append(row)
        if balance is not None:
            stated.setdefault(number, []).append((row, balance))
    if not found:
        why = f": {rejects[0].detail} has {rejects[0].reason}" if rejects else ""
        raise Refused(f"no line of the file can be read{why}; nothing was stored")
    next(iter(found.values())).rejects = rejects
    for number, pairs in stated.items():
        _state(found[number], pairs)
    return list(found.values())


def _check(table: Table, options: Mapping[str, str]) -> None:
    if unknown := sorted(options.keys() - _OPTIONS):
        raise Refused(f"a CSV file has no setting {', '.join(unknown)}; nothing was stored")
    if unknown := missing(options):
        raise Refused(f"what the columns mean is not known yet: set {', '.join(unknown)}; nothing was stored")
    for field, name in options.items():
        if name not in table.names and field not in ("order", "decimal", "currency", "account"):
            raise Refused(f"the file has no column {name} (for {field}); nothing was stored")
        if table.names.count(name) > 1:
            raise Refused(f"the file has several columns {name} (for {field}); nothing was stored")
    if options["order"] not in ("ymd", "dmy", "mdy") or options["decimal"] not in (".", ","):
        raise Refused("order must be ymd, dmy or mdy, and decimal a point or a comma; nothing was stored")


def _statement(number: str, code: str) -> Statement:
    if not number:
        raise BadRecord("account_missing")
    one = Statement(bank="", number="".join(number.split()), currency=code, type=AccountType.OTHER, subtype="account")
    one.lists_all = False  # it may have been filtered, and has no pending rows
    return one


def _row(cells: Mapping[str, str], options: Mapping[str, str], code: str) -> tuple[Row, Decimal | None]:
    def cell(field: str) -> str:
        return cells[options[field]] if field in options else ""

    def amount(field: str) -> Decimal:
        return values.grouped_amount(cell(field), options["decimal"], field)

    if "amount" in options:
        moved = amount("amount")
    else:  # banks write what was paid out with and without a minus sign
        paid_in, paid_out = (amount(field) if cell(field) else money.ZERO for field in ("credit", "debit"))
        moved = money.total([paid_in, money.negated(paid_out.copy_abs())])
        if not cell("credit") and not cell("debit"):
            raise BadRecord("amount_missing")
    row = Row(
        amount=moved,
        day=values.ordered_day(cell("date"), options["order"]),
        currency=code,
        ref=values.text(cell("ref")) or "",
        description=values.text(cell("description")),
        counterparty=values.text(cell("counterparty")),
    )
    return row, amount("balance") if cell("balance") else None


def _state(one: Statement, pairs: Sequence[tuple[Row, Decimal]]) -> None:
    """Takes the newest balance, if each balance follows from the one before: then it is known which end is newer."""
    for ordered in (pairs, pairs[::-1]):
        if all(money.total([before, row.amount]) == after for (_, before), (row, after) in pairwise(ordered)):
            if len(ordered) > 1 and len(ordered) == len(one.rows) and not one.rejects:
                one.closing, one.closed_on = ordered[-1][1], ordered[-1][0].day
            return


def _is_header(cells: Sequence[str], width: int) -> bool:
    return (
        len(cells) == width
        and all(cells[:2])
        and not any(values.DAY.match(cell) or cell[:1].isdigit() for cell in cells)
    )
