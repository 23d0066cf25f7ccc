"""`dashtam transactions`: shows the transactions that were synced."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from worker.cli.ask import ProviderOption, ask
from worker.cli.output import AsJson, plain, show, status, table

if TYPE_CHECKING:
    from worker.models.fleet import TransactionRow


def transactions(
    provider: ProviderOption = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Only from this day on.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show the transactions that were synced, newest first; + is money into the account.

    [bold]Example[/]

    dashtam transactions --provider "Schwab one" --since 2025-01-01
    """
    from worker.services.fleet import details

    day = None if since is None else since.date()
    rows = ask(details.transactions, provider, since=day, limit=limit)
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
