"""The provider's records as no honest provider would send them: the rest of the page lands, the counts are true."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from tests.integration.sync import books as compare
from tests.integration.sync.test_sandbox_sync import link, sync
from tests.support.sandbox import SandboxAdmin
from worker.models.vocabulary import RunStatus
from worker.runtime import Runtime

pytestmark = pytest.mark.deep

TODAY = "2026-03-05"


class Login:
    """One sandbox login of Plaid, linked."""

    def __init__(self, runtime: Runtime, engine: Engine, sandbox: SandboxAdmin) -> None:
        self.runtime, self.engine, self.sandbox = runtime, engine, sandbox
        (self.name,) = sandbox.create_logins("plaid", accounts=2, transactions=20)
        self.account = sandbox.books(self.name)["accounts"][0]["provider_account_id"]
        self.provider_id: UUID = link(runtime, sandbox, "plaid", self.name)

    def serve(self, key: str = "bad", **fields: Any) -> None:
        """A record among the others; a field given as bytes is put in as it is."""
        self.serve_text(record(self.account, key, **fields))

    def serve_text(self, written: str) -> None:
        self.sandbox.serve_verbatim(self.name, written, account=self.account)

    def sync(self) -> Any:
        return sync(self.runtime, self.provider_id)

    def row(self, key: str = "bad") -> tuple[Any, ...] | None:
        with self.engine.connect() as connection:
            query = text(
                "SELECT status, amount, posted_date::text, description, flags FROM transactions"
                " WHERE provider_transaction_id = :key"
            )
            found = connection.execute(query, {"key": key}).one_or_none()
            return None if found is None else tuple(found)

    def quarantined(self) -> list[tuple[Any, ...]]:
        with self.engine.connect() as connection:
            query = text("SELECT kind, record_key FROM quarantine WHERE provider_id = :id AND resolved_at IS NULL")
            return [tuple(row) for row in connection.execute(query, {"id": self.provider_id})]

    def others_equal_the_books(self) -> bool:
        stored = compare.stored_transactions(self.engine, self.provider_id)
        booked = compare.booked_transactions(self.sandbox.books(self.name))
        return not booked - stored and all(row[1] in ("bad", "good") for row in stored - booked)


def record(account: str, key: str, **fields: Any) -> str:
    """A transaction in Plaid's words; values given as `Raw` go in as they are."""
    values: dict[str, Any] = {
        "transaction_id": key,
        "account_id": account,
        "amount": 12.34,
        "iso_currency_code": "USD",
        "unofficial_currency_code": None,
        "date": TODAY,
        "name": "SHOP",
        "pending": False,
        "pending_transaction_id": None,
        "payment_channel": "online",
    } | fields
    written = json.dumps({name: value if not isinstance(value, Raw) else f"@{name}@" for name, value in values.items()})
    for name, value in values.items():
        if isinstance(value, Raw):
            written = written.replace(f'"@{name}@"', value)
    return written


class Raw(str):
    """JSON text as it is."""

    __slots__ = ()


@pytest.fixture
def login(runtime: Runtime, engine: Engine, sandbox: SandboxAdmin) -> Login:
    return Login(runtime, engine, sandbox)


@pytest.mark.parametrize(
    "fields",
    [
        {"amount": Raw("NaN")},
        {"amount": Raw("-Infinity")},
        {"amount": "1e400"},
        {"amount": Raw("1e400")},
        {"amount": "1,234.56"},
        {"amount": Raw("9" * 5000)},
        {"amount": None},
        {"amount": [1]},
        {"date": "0000-00-00"},
        {"date": "10000-01-01"},
        {"date": None},
        {"pending": "perhaps"},
        {"account_id": "nobody"},
    ],
    ids=lambda fields: "-".join(f"{name}={str(value)[:12]}" for name, value in fields.items()),
)
def test_record_that_cannot_be_trusted_goes_to_quarantine_and_the_rest_lands(
    login: Login, fields: dict[str, Any]
) -> None:
    login.serve(**fields)
    login.serve("good")

    run = login.sync()

    assert run.status == RunStatus.COMPLETED
    assert login.row() is None
    assert login.row("good") is not None
    assert login.quarantined() == [("transaction", "bad")]
    assert login.others_equal_the_books()
    stored = len(compare.stored_transactions(login.engine, login.provider_id))
    assert run.counts["transactions"] == {"added": stored, "quarantined": 1}


@pytest.mark.parametrize(
    ("name", "stored"), [("A\\u0000B", "AB"), ("A\\ud800B", "A\ufffdB")], ids=["NUL", "lone surrogate"]
)
def test_text_that_cannot_be_stored_is_mended_and_flagged(login: Login, name: str, stored: str) -> None:
    login.serve(name=Raw(f'"{name}"'))

    login.sync()

    row = login.row()
    assert row is not None
    assert row[3] == stored
    assert len(row[4]) == 1


def test_unknown_fields_are_ignored(login: Login) -> None:
    login.serve(surprise={"deep": [1, {"er": None}]})

    login.sync()

    assert login.row() == ("posted", Decimal("-12.34"), TODAY, "SHOP", None)


def test_same_record_twice_is_one_row(login: Login) -> None:
    login.serve()
    login.serve()

    login.sync()

    assert login.row() == ("posted", Decimal("-12.34"), TODAY, "SHOP", None)


def test_same_id_with_two_contents_keeps_the_last_and_says_so(login: Login) -> None:
    login.serve(amount=1)
    login.serve(amount=2)

    login.sync()

    row = login.row()
    assert row is not None
    assert (row[1], row[4]) == (Decimal(-2), ["duplicate_conflict"])


def test_record_that_is_no_object_is_quarantined_without_a_name(login: Login) -> None:
    login.serve_text("17")

    run = login.sync()

    assert run.status == RunStatus.COMPLETED
    assert login.quarantined() == [("transaction", None)]
    assert login.others_equal_the_books()


def test_page_that_is_not_utf_8_costs_that_part_alone_and_keeps_its_cursor(login: Login) -> None:
    login.sync()
    before = login.sync().cursor_after
    login.sandbox.mutate(login.name, {"op": "verbatim", "record_base64": "eyJ4IjogIv8ifQ==", "account": login.account})

    run = login.sync()

    assert run.status == RunStatus.PARTIAL
    assert run.problems["problems"][0]["kind"] == "bad_payload"
    assert run.cursor_after == before
    assert login.others_equal_the_books()


def test_removal_of_a_row_that_never_was_is_nothing(login: Login) -> None:
    login.sandbox.mutate(login.name, {"op": "ghost_removal", "id": "never", "account": login.account})

    run = login.sync()

    assert run.counts["transactions"].keys() == {"added"}
    assert login.others_equal_the_books()


def test_accounts_that_vanish_all_at_once_are_not_believed(login: Login) -> None:
    login.sync()
    for account in login.sandbox.books(login.name)["accounts"]:
        login.sandbox.mutate(login.name, {"op": "close_account", "account": account["provider_account_id"]})

    login.sync()

    with login.engine.connect() as connection:
        assert connection.execute(text("SELECT DISTINCT status FROM accounts")).scalars().all() == ["active"]
