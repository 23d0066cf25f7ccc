"""`dashtam quarantine`: shows records that could not be trusted, and replays or dismisses them."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import RenderableType
from rich.markup import escape

from worker.cli.ask import ProviderOption, ask, operator
from worker.cli.output import AsJson, lists_alone, pairs, plain, print_json, say, short, show, table

if TYPE_CHECKING:
    from worker.models.fleet import QuarantineEntry

app = typer.Typer(help="List records that could not be trusted, and try them again.", invoke_without_command=True)

EntryId = Annotated[str, typer.Argument(metavar="ENTRY", help="Id of an entry, or its beginning.")]


@app.command("list")
def list_(
    provider: ProviderOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Also those that are settled.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List quarantined records, newest first.

    [bold]Example[/]

    dashtam quarantine list --provider "Plaid one"
    """
    from worker.services.fleet import details

    show(ask(details.quarantined, provider, resolved=all_, limit=limit), as_json=as_json, render=_list)


lists_alone(app, list_)


def _list(entries: list[QuarantineEntry]) -> RenderableType:
    return table(
        ("id", "provider", "kind", "record", "reason", "when", "resolution"),
        [
            (short(e.id), plain(e.alias), e.kind, plain(e.record_key), plain(e.reason), e.created_at,
             plain(e.resolution))
            for e in entries
        ],
    )  # fmt: skip


@app.command("show")
def show_(entry: EntryId, as_json: AsJson = False) -> None:
    """Show one record as it was stored: secrets and account numbers are masked.

    [bold]Example[/]

    dashtam quarantine show 0198c2f4-…
    """
    from worker.services.fleet import details

    show(ask(details.entry, entry), as_json=as_json, render=_show)


def _show(entry: QuarantineEntry) -> RenderableType:
    payload = msgspec.json.format(msgspec.json.encode(entry.payload), indent=2).decode()
    names = [field.name for field in fields(entry) if field.name != "payload"]
    return pairs(
        [*((name.replace("_", " "), plain(getattr(entry, name))) for name in names), ("payload", escape(payload))]
    )


@app.command()
def replay(entry: EntryId, as_json: AsJson = False) -> None:
    """Sync the entry's provider from the beginning; the entry is closed when its record can be stored.

    The stored record is masked, so the original is fetched from the provider again. Do this after the mapping was
    corrected.

    [bold]Example[/]

    dashtam quarantine replay 0198c2f4-…
    """
    from worker.services.fleet import asking
    from worker.tasks.send import send

    entry_id, asked = ask(asking.replay_entry, entry, send=send)
    if as_json:
        print_json({"id": entry_id, "provider_id": asked.ids[0], "task_id": asked.task_ids[0]})
    else:
        say(f"asked for a full sync of {plain(asked.rows[0].alias)}; `dashtam runs` shows the result")


@app.command()
def dismiss(entry: EntryId, as_json: AsJson = False) -> None:
    """Close an entry that needs no correction; it is kept until its retention ends.

    [bold]Example[/]

    dashtam quarantine dismiss 0198c2f4-…
    """
    from worker.services.fleet import steering

    id_ = ask(steering.dismiss_entry, entry, actor=operator())
    if as_json:
        print_json({"id": id_, "dismissed": True})
    else:
        say("dismissed")
