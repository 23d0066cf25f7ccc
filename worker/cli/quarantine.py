"""`dashtam quarantine`: records that could not be trusted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer
from rich.console import RenderableType
from rich.markup import escape

from worker.cli.lookup import parse_id, resolve
from worker.cli.output import AsJson, pairs, plain, print_json, say, show, table
from worker.cli.providers import operator
from worker.cli.send import send
from worker.cli.sync import TASK, refuse_beside_another
from worker.crud import steering
from worker.crud.sync import quarantine
from worker.errors import Refused
from worker.models import Quarantine
from worker.runtime import get_runtime

app = typer.Typer(help="Look at records that could not be trusted, and try them again.", invoke_without_command=True)

EntryId = Annotated[str, typer.Argument(metavar="ENTRY", help="Id of an entry.")]
_FIELDS = (
    "id", "provider_id", "run_id", "kind", "account_key", "record_key", "reason", "detail", "payload", "created_at",
    "resolved_at", "resolution",
)  # fmt: skip


@app.callback()
def default(ctx: typer.Context, as_json: AsJson = False) -> None:
    """`dashtam quarantine` alone lists."""
    if ctx.invoked_subcommand is None:
        list_(as_json=as_json)


@app.command("list")
def list_(
    provider: Annotated[str | None, typer.Option(help="Only those of this provider.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="Also those that are settled.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List quarantined records, newest first.

    [bold]Example[/]

    dashtam quarantine list --provider "Plaid one"
    """
    with get_runtime().transaction() as session:
        provider_id = None if provider is None else resolve(session, provider).id
        entries = quarantine.list_quarantine(session, provider_id=provider_id, resolved=all_, limit=limit)
        data = [_plain(entry) for entry in entries]
    show(data, as_json=as_json, render=_list)


def _plain(entry: Quarantine) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in _FIELDS}


def _list(entries: list[dict[str, Any]]) -> RenderableType:
    names = ("id", "kind", "record_key", "reason", "created_at", "resolution")
    return table(
        ("id", "kind", "record", "reason", "when", "resolution"), [tuple(e[name] for name in names) for e in entries]
    )


@app.command("show")
def show_(entry: EntryId, as_json: AsJson = False) -> None:
    """Show one record as it was kept: secrets and account numbers are masked.

    [bold]Example[/]

    dashtam quarantine show 0198c2f4-…
    """
    with get_runtime().transaction() as session:
        data = _plain(quarantine.get_quarantine(session, entry_id=parse_id(entry, "quarantine")))
    show(data, as_json=as_json, render=_show)


def _show(data: dict[str, Any]) -> RenderableType:
    payload = msgspec.json.format(msgspec.json.encode(data["payload"]), indent=2).decode()
    rows = [(name.replace("_", " "), plain(data[name])) for name in _FIELDS if name != "payload"]
    return pairs([*rows, ("payload", escape(payload))])


@app.command()
def replay(entry: EntryId, as_json: AsJson = False) -> None:
    """Fetch the entry's provider anew, from scratch; the entry closes by itself once its record can be stored.

    What was kept is masked, so the record itself comes from the provider again. Worth it after its mapping was mended.

    [bold]Example[/]

    dashtam quarantine replay 0198c2f4-…
    """
    runtime = get_runtime()
    with runtime.transaction() as session:
        found = quarantine.get_quarantine(session, entry_id=parse_id(entry, "quarantine"))
        if found.resolved_at is not None:
            raise Refused(f"it was settled before ({found.resolution}); nothing was sent")
        provider_id = found.provider_id
        refuse_beside_another(session, provider_id, dead_after=timedelta(seconds=runtime.settings.run_dead_seconds))
        steering.make_due(session, provider_id=provider_id, what="sync", at=datetime.now(UTC))
    task_id = send(TASK, [str(provider_id)], trigger="manual", mode="full", force=True)
    if as_json:
        print_json({"id": entry, "provider_id": provider_id, "task_id": task_id})
    else:
        say(f"asked for a full sync of {provider_id}; `dashtam runs` shows what becomes of it")


@app.command()
def dismiss(entry: EntryId, as_json: AsJson = False) -> None:
    """Close an entry that nobody will mend; it is kept until its retention ends.

    [bold]Example[/]

    dashtam quarantine dismiss 0198c2f4-…
    """
    with get_runtime().transaction() as session:
        id_ = parse_id(entry, "quarantine")
        quarantine.dismiss(session, entry_id=id_, now=datetime.now(UTC), actor=operator())
    if as_json:
        print_json({"id": id_, "dismissed": True})
    else:
        say("dismissed")
