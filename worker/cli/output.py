"""Prints results: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec
import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from worker.text.plain_text import HARMFUL, visible

T = TypeVar("T")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class SafeConsole(Console):
    """A console whose text cannot control the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See rich. Control codes that rich itself sends are kept; those in texts are escaped."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text, lines=True), style, control)


# Programs that read our tables need whole lines, independent of a terminal's width.
console = SafeConsole(highlight=False, width=None if sys.stdout.isatty() else 240)

NOTHING = "-"

_COLOURS = {
    "active": "green",
    "completed": "green",
    "running": "cyan",
    "partial": "yellow",
    "pending": "yellow",
    "paused": "yellow",
    "half_open": "yellow",
    "needs_reauth": "red",
    "failed": "red",
    "open": "red",
}


def lists_alone(app: typer.Typer, list_: Callable[..., None]) -> None:
    """Makes `list` a group's default command: `dashtam runs` does the same as `dashtam runs list`."""

    @app.callback()
    def default(ctx: typer.Context, as_json: AsJson = False) -> None:
        if ctx.invoked_subcommand is None:
            list_(as_json=as_json)


def show(data: T, *, as_json: bool, render: Callable[[T], RenderableType]) -> None:
    """Prints `data` as JSON, or in the form that `render` returns."""
    if as_json:
        print_json(data)
    else:
        console.print(render(data))


def print_json(data: Any) -> None:
    """Prints one indented JSON document, in which control characters are escaped."""
    document = msgspec.json.format(msgspec.json.encode(data, enc_hook=str), indent=2).decode()
    sys.stdout.write(HARMFUL.sub(lambda found: json.dumps(found[0])[1:-1], document) + "\n")


def say(message: str) -> None:
    """Prints a sentence, which may contain markup. Use `plain` for texts that are not our own."""
    console.print(message, soft_wrap=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> RenderableType:
    """A plain table; columns whose name begins with `#` are numbers and are aligned to the right."""
    if not rows:
        return "none" if title is None else f"{title}: none"
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        number = column.startswith("#")
        made.add_column(column.removeprefix("#"), justify="right" if number else "left", no_wrap=number)
    for row in rows:
        made.add_row(*map(_cell, row))
    return made


def pairs(rows: Sequence[tuple[str, object]]) -> RenderableType:
    """Names and values, one pair per line."""
    made = Table.grid(padding=(0, 2))
    for name, value in rows:
        made.add_row(_cell(f"[bold]{name}[/]"), _cell(value))
    return made


def _cell(value: object) -> str:
    # If the console escaped the text later, it would no longer fit into the column.
    return visible(value, lines=True) if isinstance(value, str) else plain(value)


def plain(value: object) -> str:
    """A value as text on one line, in which markup has no effect."""
    if value is None:
        return NOTHING
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
    if isinstance(value, timedelta):
        return duration(value)
    return escape(visible(str(value)))


def status(word: str | None) -> str:
    """A status in its colour."""
    if word is None:
        return NOTHING
    colour = _COLOURS.get(word)
    return f"[{colour}]{word}[/]" if colour else escape(word)


def relative(moment: datetime | None, now: datetime) -> str:
    """`in 5m` or `3h ago`."""
    if moment is None:
        return NOTHING
    return f"in {duration(moment - now)}" if moment > now else f"{duration(now - moment)} ago"


def duration(span: timedelta) -> str:
    """A time span in its two largest units."""
    seconds = int(abs(span.total_seconds()))
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, seconds = divmod(rest, 60)
    if days:
        return f"{days}d {hours}h" if hours else f"{days}d"
    if hours:
        return f"{hours}h {minutes}m" if minutes else f"{hours}h"
    if minutes:
        return f"{minutes}m {seconds}s" if seconds else f"{minutes}m"
    return f"{seconds}s"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """`1 sync`, `2 syncs`."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def short(id_: UUID) -> str:
    """The first characters of an id, enough to identify one row: ids begin with the time in milliseconds."""
    return str(id_)[:18]


def trouble_lines(troubles: Sequence[Mapping[str, Any]]) -> list[str]:
    """The troubles that stop work, the root cause first: one line for each, and one with the command that mends it."""
    lines = []
    for trouble in troubles:
        word = "[yellow]note   [/]" if trouble["ok"] else "[red]trouble[/]"
        lines.append(f"{word} {plain(trouble['check'])}: {plain(trouble['found'])}")
        lines.append(f"        [bold]→ {plain(trouble['mend'])}[/]")
    return [*lines, ""] if lines else []
