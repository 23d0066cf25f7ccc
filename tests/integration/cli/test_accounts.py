"""Merging, splitting and undoing by the command line."""

from __future__ import annotations

from datetime import date

import pytest
from sqlalchemy.orm import Session

from tests.factories import make_account, make_linked_provider, make_transaction
from tests.integration.cli.conftest import json_of
from tests.support.command_line import Dashtam
from worker.models import Account, ProviderAuditLog
from worker.runtime import Runtime


@pytest.fixture
def two(rows: Session, runtime: Runtime) -> tuple[str, str]:
    """Ids of two accounts of one user that have a transaction in common."""
    first = make_linked_provider(rows, runtime.encryption, provider_key="schwab", alias="One")
    second = make_linked_provider(rows, runtime.encryption, provider_key="plaid", alias="Two", user_id=first.user_id)
    accounts = [make_account(rows, provider_id=provider.id) for provider in (first, second)]
    for number, account in enumerate(accounts):
        for key, day in (("same", date(2025, 3, 1)), ("own", date(2025, 3, 2 + number))):
            make_transaction(rows, account=account, posted_date=day, provider_transaction_id=key)
    rows.commit()
    return str(accounts[0].id), str(accounts[1].id)


def test_merge_says_what_it_would_do_asks_and_can_be_undone(
    dashtam: Dashtam, rows: Session, two: tuple[str, str]
) -> None:
    tried = dashtam("accounts", "merge", *two, "--dry-run")
    assert "1 transaction in both accounts, 1 in the first one alone; nothing was changed" in tried.output
    assert dashtam("accounts", "merge", *two, stdin="n\n").exit_code != 0
    assert rows.query(Account).count() == 2

    done = json_of(dashtam("accounts", "merge", *two, "--yes", "--json"))

    assert (done["kind"], done["shared"], done["moved"], done["account"]) == ("merge", 1, 1, two[1])
    rows.rollback()
    assert rows.query(Account).count() == 1
    assert [row["id"] for row in json_of(dashtam("accounts", "changes", "--json"))] == [done["change"]]
    undone = dashtam("accounts", "undo", done["change"], "--yes")
    assert "dashtam accounts undo" not in undone.output
    assert {row["id"] for row in json_of(dashtam("accounts", "--json"))} == set(two)
    rows.rollback()
    actions = [row.action for row in rows.query(ProviderAuditLog).filter(ProviderAuditLog.actor != "system")]
    assert {"accounts_merge", "accounts_split", "accounts_undone"} <= set(actions)


@pytest.mark.deep
def test_split_of_an_account_that_was_never_merged_says_so(dashtam: Dashtam, two: tuple[str, str]) -> None:
    result = dashtam("accounts", "split", two[0], "--yes")

    assert result.exit_code != 0
    assert "nothing to split" in result.output


@pytest.mark.deep
@pytest.mark.parametrize("command", ["merge", "split", "undo"])
def test_id_that_names_nothing_says_where_ids_are_listed(dashtam: Dashtam, command: str) -> None:
    given = ["ffffffff"] * (2 if command == "merge" else 1)

    result = dashtam("accounts", command, *given, "--yes")

    assert result.exit_code != 0
    assert "dashtam accounts" in result.output
