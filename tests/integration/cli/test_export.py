"""`dashtam export` on real rows: what is in the files, what bean-check says, and what bad input changes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from beancount import loader
from beancount.core.data import Transaction as Entry
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.factories import make_account, make_provider, make_transaction, make_user
from tests.integration.cli.conftest import json_of
from tests.support.command_line import Dashtam
from worker.models import Account, Balance, BalanceDay, Holding, HoldingDay, Liability, Security

ADA = "ada-export@example.org"
DAY = date(2025, 3, 14)


@pytest.fixture
def books(rows: Session) -> Iterator[dict[str, Any]]:
    """One user's checking account, card and brokerage account, and another user's account."""
    login = make_provider(rows, user=make_user(rows, email=ADA), alias="My bank")
    checking = make_account(rows, provider=login, name="Checking", type="depository", currency="USD")
    card = make_account(rows, provider=login, name='Credit "Gold" Card', type="credit", currency="USD")
    broker = make_account(rows, provider=login, name="Broker", currency="USD")
    _balance(rows, checking, current="900.05")
    _balance(rows, card, current="-250.10")
    _balance(rows, broker, current="6500.00", cash="4987.34")
    rows.add(
        Liability(
            account_id=card.id,
            liability_key="credit",
            kind="credit",
            currency="USD",
            interest_rate=Decimal("15.240"),
            details={"aprs": [{"type": "purchase_apr", "percentage": "15.240"}]},
            content_hash=b"",
        )
    )
    groceries = {"account": card, "counterparty": "Grocer", "category": "FOOD_AND_DRINK"}
    make_transaction(rows, **groceries, amount=Decimal("-80.00"), description='=HYPERLINK("x") \\ "quoted"\nline')
    make_transaction(rows, **groceries, amount=Decimal("10.00"), description="Refund")
    make_transaction(rows, **groceries, amount=Decimal("-5.00"), status="pending")
    make_transaction(rows, **groceries, amount=Decimal("-7.00"), status="removed")
    make_transaction(rows, account=checking, amount=Decimal(-500), type="transfer", posted_date=date(2025, 1, 2))
    make_transaction(rows, account=checking, amount=Decimal("12.50"), type="income", subtype="interest")
    make_transaction(rows, account=checking, amount=Decimal(0), type="other")
    acme, bonds = _security(rows, "ACME", "Acme Works"), _security(rows, None, "Bonds of 2031")
    odd, dollars = _security(rows, "USD", "A share named like a currency"), _security(rows, "CUR:USD", "Dollar", "cash")
    for values in (
        {"quantity": 10, "amount": "-1512.66", "price": 151, "fees": "2.66", "security_id": acme},
        {"quantity": -4, "amount": "620.00", "price": 155, "security_id": acme},
        {"quantity": 3, "amount": "0", "price": None, "security_id": acme, "type": "corporate_action"},
        {"quantity": "0.5", "amount": "7.00", "price": None, "security_id": bonds, "type": "reinvestment"},
        {"quantity": 2, "amount": "-20", "price": 10, "security_id": odd},
        {"quantity": 50, "amount": "50", "price": 1, "security_id": dollars, "type": "transfer"},
    ):
        defaults = {"account": broker, "type": "trade"}
        decimals = {name: Decimal(values[name]) for name in ("quantity", "amount", "fees") if name in values}  # type: ignore[arg-type]
        make_transaction(rows, **defaults | values | decimals)
    for security, quantity in ((acme, "12"), (bonds, "100.5"), (odd, "2"), (dollars, "4987.34")):
        _holding(rows, broker, security, Decimal(quantity))
    other = make_account(rows, name="Not hers")
    make_transaction(rows, account=other, description="SECRET OF ANOTHER")
    rows.commit()
    yield {"checking": checking.id, "card": card.id, "broker": broker.id}
    rows.rollback()


def _balance(session: Session, account: Account, **figures: str) -> None:
    stated = {"account_id": account.id, "currency": "USD"} | {name: Decimal(figures[name]) for name in figures}
    session.add(Balance(**stated, source="test", content_hash=b"", taken_at=datetime(2025, 3, 14, 12, tzinfo=UTC)))
    session.add(BalanceDay(**stated, day=DAY))


def _security(session: Session, symbol: str | None, name: str, kind: str = "equity") -> UUID:
    key = f"export:{uuid4()}"
    row = Security(
        key=key, type=kind, symbol=symbol, name=name, multiplier=Decimal(1), source="export", content_hash=b""
    )
    session.add(row)
    session.flush()
    return row.id


def _holding(session: Session, account: Account, security_id: UUID, quantity: Decimal) -> None:
    figures = {"quantity": quantity, "price": Decimal(150), "market_value": None}
    row = Holding(
        account_id=account.id,
        holding_key=str(security_id),
        security_id=security_id,
        currency="USD",
        content_hash=b"",
        **figures,
    )
    session.add(row)
    session.flush()
    session.add(HoldingDay(holding_id=row.id, day=DAY, **figures))


def table(folder: Path, noun: str) -> list[dict[str, str]]:
    with (folder / f"{noun}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.deep
def test_csv_has_a_file_for_each_table(dashtam: Dashtam, books: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "export"

    told = json_of(dashtam("export", "--user", ADA, "--output", str(folder), "--json"))

    assert told["rows"] == {
        "accounts": 3,
        "balances": 3,
        "balance_days": 3,
        "holdings": 4,
        "holding_days": 4,
        "liabilities": 1,
        "transactions": 12,
    }
    (owed,) = table(folder, "liabilities")
    assert (owed["interest_rate"], json.loads(owed["details"])["aprs"][0]["percentage"]) == ("15.240", "15.240")
    transactions = table(folder, "transactions")
    assert len(transactions) == 12
    assert {row["account_id"] for row in transactions} == {str(id_) for id_ in books.values()}
    assert "SECRET OF ANOTHER" not in (folder / "transactions.csv").read_text()
    assert {row["amount"] for row in transactions} >= {"-80.00", "-1512.66", "12.50"}
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert {path.stem for path in folder.iterdir()} == told["rows"].keys()


def test_text_that_a_spreadsheet_would_run_is_quoted_in_csv_and_exact_in_json(
    dashtam: Dashtam, books: dict[str, Any], tmp_path: Path
) -> None:
    dashtam("export", "--user", ADA, "--output", str(tmp_path / "export"))
    texts = {row["description"] for row in table(tmp_path / "export", "transactions")}
    assert '\'=HYPERLINK("x") \\ "quoted"\nline' in texts

    lines = dashtam("export", "--user", ADA, "--output", "-", "--format", "jsonl").stdout.splitlines()
    described = {row["description"] for row in map(json.loads, lines) if row["noun"] == "transactions"}
    assert '=HYPERLINK("x") \\ "quoted"\nline' in described
    assert len(lines) == 3 + 3 + 3 + 4 + 4 + 1 + 12


@pytest.mark.deep
def test_bean_check_accepts_the_ledger_and_its_balances_are_those_of_the_institution(
    dashtam: Dashtam, books: dict[str, Any], tmp_path: Path
) -> None:
    ledger = tmp_path / "ada.beancount"
    result = dashtam("export", "--user", ADA, "--output", str(ledger), "--format", "beancount")
    assert result.exit_code == 0, result.output

    entries, errors, _ = loader.load_file(str(ledger))

    assert errors == []
    posted = [entry for entry in entries if isinstance(entry, Entry) and "id" in entry.meta]
    assert len(posted) == 11  # all but the pending one
    checked = subprocess.run(
        [Path(sys.executable).with_name("bean-check"), str(ledger)], capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    told = ledger.read_text()
    assert " balance Liabilities:Schwab:Credit-Gold-Card" in told
    assert "-250.10 USD" in told
    assert "4987.34 USD" in told


def test_ledger_with_a_wrong_balance_is_not_accepted(dashtam: Dashtam, books: dict[str, Any], tmp_path: Path) -> None:
    ledger = tmp_path / "ada.beancount"
    dashtam("export", "--user", ADA, "--output", str(ledger), "--format", "beancount")
    ledger.write_text(ledger.read_text().replace("-80.00 USD", "-81.00 USD"))

    assert loader.load_file(str(ledger))[1] != []


@pytest.mark.deep
def test_since_leaves_out_what_is_older(dashtam: Dashtam, books: dict[str, Any], tmp_path: Path) -> None:
    ledger = tmp_path / "ada.beancount"
    options = ("--since", "2025-02-01", "--json")

    told = json_of(dashtam("export", "--user", ADA, "--output", str(ledger), "--format", "beancount", *options))

    assert told["rows"] == {"accounts": 3, "transactions": 11, "holdings": 4, "holding_days": 4}
    assert loader.load_file(str(ledger))[1] == []


@pytest.mark.deep
@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--user", "nobody@example.org", "--output", "x"), 2, "no user has the e-mail address"),
        (("--user", ADA, "--output", "-"), 2, "CSV has a file for each table"),
        (("--user", ADA, "--output", "x", "--format", "xlsx"), 2, "no format is named xlsx"),
        (("--user", ADA, "--output", "missing/x"), 3, "there is no folder missing"),
        (("--user", ADA, "--output", "there"), 3, "is already there and was kept"),
        (("--user", ADA, "--output", "photos", "--force"), 3, "has other files than those of an export"),
        (("--user", ADA, "--output", "x", "--since", "30 February"), 2, "since"),
    ],
)
def test_bad_input_changes_nothing(
    dashtam: Dashtam, books: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...], code: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("kept")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/budget.csv").write_text("kept")
    before = sorted(str(path) for path in tmp_path.rglob("*"))

    result = dashtam("export", *options)

    assert (result.exit_code, said in result.output) == (code, True), result.output
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.deep
def test_failure_in_the_middle_leaves_what_was_there(
    dashtam: Dashtam, books: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ada.jsonl"
    file.write_text("before")

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("worker.services.export.json_lines.write", fail)
    result = dashtam("export", "--user", ADA, "--output", str(file), "--format", "jsonl", "--force")

    assert result.exit_code != 0
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["ada.jsonl"]


@pytest.mark.deep
@pytest.mark.release
def test_memory_does_not_grow_with_the_number_of_rows(
    books: dict[str, Any], rows: Session, tmp_path: Path, engine: Any
) -> None:
    rows.execute(
        text(
            """
            INSERT INTO transactions (id, account_id, provider_transaction_id, status, type, amount, currency,
                posted_date, description, content_hash)
            SELECT gen_random_uuid(), :account, 'many-' || i, 'posted', 'payment', -1, 'USD',
                DATE '2025-01-01' + i % 60, 'CORNER GROCERY', '' FROM generate_series(1, 100000) AS i
            """
        ),
        {"account": books["checking"]},
    )
    rows.commit()
    environment = os.environ | {"DATABASE_URL": engine.url.render_as_string(hide_password=False)}
    arguments = ("export", "--user", ADA, "--output", str(tmp_path / "x"), "--format", "beancount")

    child = subprocess.run(
        [sys.executable, "-c", _MEASURED, *arguments], env=environment, check=True, capture_output=True, text=True
    )

    assert len((tmp_path / "x").read_text().split("CORNER GROCERY")) == 100_001
    assert int(child.stdout.split()[-1]) < 130 * 1024


_MEASURED = """
import atexit, pathlib, re
from worker.cli import main
status = pathlib.Path("/proc/self/status")
atexit.register(lambda: print(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]))
main()
"""
