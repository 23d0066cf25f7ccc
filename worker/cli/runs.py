"""`dashtam runs`: lists and shows sync runs."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group, RenderableType

from worker.cli.ask import ProviderOption, ask, one_of
from worker.cli.output import AsJson, duration, lists_alone, pairs, plain, short, show, status, table

if TYPE_CHECKING:
    from worker.models.fleet import Run
    from worker.models.vocabulary import RunStatus

app = typer.Typer(help="Show what syncs have done.", invoke_without_command=True)


def _statuses() -> type[RunStatus]:
    from worker.models.vocabulary import RunStatus

    return RunStatus


@app.command("list")
def list_(
    provider: ProviderOption = None,
    status_: Annotated[str | None, one_of(_statuses)] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first.

    [bold]Example[/]

    dashtam runs list --provider "Schwab one" --status failed
    """
    from worker.services.fleet import details

    runs = ask(details.runs, provider, status=status_, limit=limit)
    show(runs, as_json=as_json, render=run_table)


lists_alone(app, list_)


@app.command("show")
def show_(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of a run, or its beginning.")], as_json: AsJson = False
) -> None:
    """Show one run: its counts of rows, error and problems.

    [bold]Example[/]

    dashtam runs show 0198c2f4-…
    """
    from worker.services.fleet import details

    data = ask(details.run, run)
    show(data, as_json=as_json, render=_show)


def run_table(runs: list[Run]) -> RenderableType:
    """A table with one run per line."""
    return table(
        ("id", "provider", "user", "status", "trigger", "started", "#took", "#pages", "#added", "#changed", "#same",
         "#removed", "#quarantined", "error"),
        [
            (short(r.id), plain(r.alias), plain(r.user), status(r.status), r.trigger, r.started_at, _took(r), r.pages,
             r.added, r.changed, r.unchanged, r.removed, r.quarantined, plain(r.error_reason))
            for r in runs
        ],
    )  # fmt: skip


def _took(run: Run) -> str:
    if run.finished_at is None:
        return "-"
    span = run.finished_at - run.started_at
    return f"{span.total_seconds():.1f}s" if span < timedelta(minutes=1) else duration(span)


def _cursors(kept: dict[str, Any] | None) -> object:
    """The beginning of each feed's cursor; cursors may be long, and their beginnings are enough to distinguish them."""
    return ", ".join(f"{feed} {str(cursor)[:40]}" for feed, cursor in sorted((kept or {}).items())) or None


def _show(run: Run) -> RenderableType:
    facts: list[tuple[str, object]] = [
        ("id", str(run.id)),
        ("provider", f"{plain(run.alias)} ({run.provider_id})"),
        ("user", plain(run.user)),
        ("status", status(run.status) + (" (asked to stop)" if run.cancel_requested else "")),
        ("trigger", run.trigger),
        ("mode", run.mode),
        ("started", run.started_at),
        ("finished", run.finished_at),
        ("took", _took(run)),
        ("pages", run.pages),
        ("cursors before", _cursors(run.cursor_before)),
        ("cursors after", _cursors(run.cursor_after)),
        ("error", _error(run)),
    ]
    from worker.models.vocabulary import ROW_OUTCOMES

    counts = table(
        ("kind", "#added", "#changed", "#unchanged", "#removed", "#quarantined"),
        [(noun, *(_count(row, what) for what in ROW_OUTCOMES)) for noun, row in sorted(run.counts.items())],
    )
    problems = pairs([(str(name), plain(what)) for name, what in (run.problems or {}).items()])
    return Group(pairs(facts), "", counts, "", problems if run.problems else "no problems")


def _count(row: Any, what: str) -> object:
    return row.get(what, 0) if isinstance(row, dict) else row


def _error(run: Run) -> str:
    if run.error is None:
        return "none"
    return plain(f"{run.error} of the {run.error_scope}: {run.error_reason}")
