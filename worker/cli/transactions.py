"""`dashtam transactions`: shows the transactions that were synced."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from worker.cli.ask import ProviderOption, ask
from worker.cli.output import AsJson, plain, show, status, table
from worker.cli.times import day_option

if TYPE_CHECKING:
    from worker.models.fleet import TransactionRow


def transactions(
    provider: ProviderOption = None,
    since: Annotated[date | None, day_option("Only from this day on.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show the transactions that were synced, newest first; + is money into the account.

    [bold]Example[/]

    dashtam transactions --provider "Schwab one" --since 2025-01-01
    """
    from worker.services.fleet import details

    rows = ask(details.transactions, provider, since=since, limit=limit)
    show(rows, as_json=as_json, render=_table)


def _table(rows: list[TransactionRow]) -> RenderableType:
    return table(
        ("day", "provider", "account", "status", "type", "description", "#amount", "currency"),
        [
            (str(r.posted_date), plain(r.provider), plain(r.account), status(r.status), r.type, plain(r.description),
             r.amount, plain(r.currency))
            for r in rows
        ],
    )  # fmt: skip
