"""`dashtam accounts`: shows the accounts that were synced, with their newest balances."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from worker.cli.ask import ProviderOption, ask
from worker.cli.output import AsJson, plain, show, status, table

if TYPE_CHECKING:
    from worker.models.fleet import AccountRow


def accounts(
    provider: ProviderOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Also those that are no longer listed.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
    as_json: AsJson = False,
) -> None:
    """Show the accounts that were synced, with their newest balances.

    [bold]Example[/]

    dashtam accounts --provider "Schwab one"
    """
    from worker.services.fleet import looking

    rows = ask(looking.accounts, provider, closed=all_, limit=limit)
    show(rows, as_json=as_json, render=_table)


def _table(rows: list[AccountRow]) -> RenderableType:
    return table(
        ("provider", "account", "ends in", "type", "status", "#current", "#available", "currency", "balance of"),
        [
            (plain(r.provider), plain(r.name), plain(r.mask), r.subtype, status(r.status), r.current, r.available,
             plain(r.currency), r.taken_at)
            for r in rows
        ],
    )  # fmt: skip
