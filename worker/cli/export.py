"""`dashtam export`: writes all synced data of one user to files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from worker.cli.ask import ask
from worker.cli.output import AsJson, SafeConsole, plain, show
from worker.cli.times import day_option


def export(
    user: Annotated[str, typer.Option(help="E-mail address or id of the user.")],
    output: Annotated[
        str, typer.Option(help="The file to write, for csv a folder; - for the standard output, except for csv.")
    ],
    format_: Annotated[str, typer.Option("--format", help="csv, jsonl or beancount.")] = "csv",
    since: Annotated[date | None, day_option("Only from this day on.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write all synced data of one user to files, as it is at this moment.

    [bold]Examples[/]

    dashtam export --user demo@example.org --output export

    dashtam export --user demo@example.org --format beancount --output demo.beancount
    """
    from worker.services import export as exporting

    notes = SafeConsole(stderr=True, highlight=False)
    columns = (TextColumn("rows"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=notes, transient=True, disable=as_json or not notes.is_terminal) as progress:

        def begin(total: int) -> exporting.Advance:
            bar = progress.add_task("rows", total=total)
            return lambda more: progress.advance(bar, more)

        written = ask(
            exporting.export,
            user=user,
            format_=exporting.format_named(format_),
            output=output,
            since=since,
            force=force,
            begin=begin,
        )
    if output != "-":
        show(Exported(output, written), as_json=as_json, render=_told)


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: where, and how many rows of each noun."""

    output: str
    rows: dict[str, int]


def _told(found: Exported) -> str:
    counts = ", ".join(f"{number} {noun.replace('_', ' ')}" for noun, number in found.rows.items())
    return f"{plain(found.output)}: {counts}"
