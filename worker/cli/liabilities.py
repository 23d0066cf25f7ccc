"""`dashtam liabilities`: shows the terms of cards and loans that were synced."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from worker.cli.ask import ProviderOption, ask
from worker.cli.output import AsJson, plain, show, table

if TYPE_CHECKING:
    from worker.models.fleet import TermsRow


def liabilities(
    provider: ProviderOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the terms of cards and loans: what is owed, and what is due when.

    [bold]Example[/]

    dashtam liabilities --provider "My bank"
    """
    from worker.services.fleet import details

    show(ask(details.liabilities, provider, limit=limit), as_json=as_json, render=_table)


def _table(rows: list[TermsRow]) -> RenderableType:
    return table(
        ("provider", "account", "kind", "#rate %", "#last statement", "next payment", "#due", "currency", "overdue"),
        [
            (plain(r.provider), plain(r.account), r.kind, r.interest_rate, r.last_statement_balance,
             "" if r.next_payment_date is None else str(r.next_payment_date), r.next_payment_amount,
             plain(r.currency), "yes" if r.is_overdue else "")
            for r in rows
        ],
    )  # fmt: skip
