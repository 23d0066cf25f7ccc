"""`dashtam sync`: syncs one provider, or all, now."""

from __future__ import annotations

from datetime import date
from typing import Annotated

import typer

from worker.cli.ask import aliases, ask
from worker.cli.exits import UsageProblem
from worker.cli.output import AsJson, plain, plural, print_json, say
from worker.cli.times import day_option
from worker.cli.waiting import wait_for_runs


def sync(
    provider: Annotated[
        str | None,
        typer.Argument(
            metavar="PROVIDER",
            help="Id, unique beginning of one, or unique alias.",
            show_default=False,
            autocompletion=aliases,
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every active provider.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait, and show pages and rows as they land.")] = False,
    full: Annotated[bool, typer.Option("--full", help="From the beginning; removes what is no longer listed.")] = False,
    since: Annotated[date | None, day_option("Go back to this day.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if it was synced a moment ago.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop the running sync after its current page.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Sync accounts now, through the same task that the schedule sends.

    Exits 1 if a run failed that the command waited for, 3 if the provider's state does not allow a sync, 4 if Redis
    cannot be reached: the sync is then done later.

    [bold]Examples[/]

    dashtam sync "Plaid one" --wait

    dashtam sync --all

    dashtam sync 0198c2 --full --wait
    """
    if (provider is None) != all_:
        raise UsageProblem("give one PROVIDER, or --all")
    if full and since:
        raise UsageProblem("--full already starts from the beginning; leave out --since")
    from worker.services.fleet import asking
    from worker.tasks.send import send

    if cancel:
        _cancel(provider, as_json=as_json)
        return
    wish = asking.SyncWish(full=full, since=since, force=force)
    asked = ask(asking.sync, provider, wish, send=send)
    if wait:
        wait_for_runs(asked, seconds=timeout, as_json=as_json)
    elif as_json:
        print_json({"ids": asked.ids})
    else:
        say(f"asked for {plural(len(asked.ids), 'sync')}; `dashtam runs` shows the result")


def _cancel(provider: str | None, *, as_json: bool) -> None:
    from worker.services.fleet import asking

    if provider is None:
        raise UsageProblem("--cancel takes one PROVIDER")
    row, run_id = ask(asking.cancel_sync, provider)
    if as_json:
        print_json({"id": row.id, "run_id": run_id, "cancel_requested": True})
    else:
        say(f"{plain(row.alias)}: its run stops after the current page; committed pages are kept")
