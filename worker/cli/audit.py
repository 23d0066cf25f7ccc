"""`dashtam audit`: shows who changed what, and verifies that the log was not altered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import msgspec
import typer
from rich.console import RenderableType

from worker.cli.ask import ProviderOption, ask
from worker.cli.exits import Failed, UsageProblem
from worker.cli.output import AsJson, plain, plural, show, table
from worker.cli.times import moment_option

if TYPE_CHECKING:
    from worker.models.fleet import AuditEntry
    from worker.services.audit import Verification

app = typer.Typer(help="Read the audit log, and verify that it was not altered.", no_args_is_help=True)


@app.command("list")
def list_(
    provider: ProviderOption = None,
    action: Annotated[str | None, typer.Option(help="Only this action.")] = None,
    since: Annotated[datetime | None, moment_option("Only from this moment on, UTC.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """List state changes, newest first.

    [bold]Example[/]

    dashtam audit list --provider "Schwab one"
    """
    from worker.services import audit

    entries = ask(audit.list_entries, provider, action=action, since=since, limit=limit)
    show(entries, as_json=as_json, render=_list)


@app.command()
def verify(
    provider: ProviderOption = None,
    save: Annotated[Path | None, typer.Option(help="Write the last entry of every chain to this file.")] = None,
    against: Annotated[Path | None, typer.Option(help="A file that --save wrote: also shows what was cut off.")] = None,
    as_json: AsJson = False,
) -> None:
    """Verify the hash chain of one provider, or of all; exits 1 if an entry was altered, removed or inserted.

    A chain alone cannot show that its last entries were removed. So store the file that --save writes somewhere else,
    and compare it later with --against.

    [bold]Examples[/]

    dashtam audit verify --save heads.json

    dashtam audit verify --against heads.json
    """
    from worker.services import audit

    expected = _heads(against) if against is not None else None
    found = ask(audit.verify, provider, expected=expected)
    if save is not None:
        save.write_bytes(msgspec.json.encode(found.heads))
    data = {"entries": found.entries, "chains": found.chains, "problems": found.problems}
    show(data, as_json=as_json, render=lambda _: _verification(found))
    if found.problems:
        raise Failed("the audit log was altered; keep the database as it is, and compare it with a backup")


def _heads(path: Path) -> dict[UUID, str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[UUID, str])
    except (OSError, msgspec.MsgspecError):
        raise UsageProblem("--against is no file that --save wrote") from None


def _list(entries: Sequence[AuditEntry]) -> RenderableType:
    columns = ("when", "provider", "#entry", "action", "actor", "reason", "task")
    rows = [
        (e.created_at, str(e.provider_id), e.seq, e.action, plain(e.actor), plain(e.reason), e.task_id) for e in entries
    ]
    return table(columns, rows)


def _verification(found: Verification) -> RenderableType:
    if not found.problems:
        return f"[green]unaltered[/]: {plural(found.entries, 'entry', 'entries')} in {plural(found.chains, 'chain')}"
    return table(("provider", "#entry", "problem"), [(str(p.provider_id), p.seq, p.problem) for p in found.problems])
