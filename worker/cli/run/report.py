"""The summary of one cycle, checked against the sandbox's own books, as a table or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape

from worker.cli.output import plain, status, table
from worker.cli.run.demo import Story
from worker.models.vocabulary import ROW_OUTCOMES


def summary(
    stories: list[Story], *, seconds: float, restarts: dict[str, int], troubles: Sequence[str] = ()
) -> dict[str, Any]:
    """The results of a cycle as plain data; `ok` says whether everything happened and every process works."""
    providers = [_provider(story) for story in stories]
    missing = [*troubles, *(f"{p['alias']}: {what}" for p in providers for what in p["missing"])]
    return {
        "ok": not missing,
        "seconds": round(seconds, 1),
        "providers": providers,
        "rows": {name: sum(p["rows"][name] for p in providers) for name in ROW_OUTCOMES},
        "restarts": restarts,
        "missing": missing,
    }


def _provider(story: Story) -> dict[str, Any]:
    rows = {name: sum(getattr(run, name) for run in story.runs) for name in ROW_OUTCOMES}
    return {
        "id": str(story.provider.id),
        "provider_key": story.provider.provider_key,
        "alias": story.provider.alias,
        "status": story.provider.status,
        "refreshable": story.refreshable,
        "refreshed_by_schedule": story.refreshed,
        "synced_by_schedule": len(story.runs),
        "resumed": bool(story.runs and story.runs[-1].cursor_before),
        "stored": asdict(story.stored),
        "served": asdict(story.served),
        "books": asdict(story.books),
        "rows": rows,
        "missing": [*story.missing(), *_differences(story)],
    }


def _differences(story: Story) -> list[str]:
    if not story.runs:
        return []
    found = []
    for noun in ("accounts", "transactions", "holdings"):
        here, there, told = (getattr(counts, noun) for counts in (story.stored, story.books, story.served))
        if here != there:
            found.append(f"{here} {noun} are stored, the provider's books hold {there}")
        # A sync that continued from a cursor gets only new rows.
        elif not story.runs[-1].cursor_before and here != told:
            found.append(f"{here} {noun} are stored, the provider served {told}")
    return found


def render(result: dict[str, Any]) -> RenderableType:
    """The summary for people."""
    rows = [
        (
            plain(p["alias"]),
            p["provider_key"],
            status(p["status"]),
            str(p["refreshed_by_schedule"]) if p["refreshable"] else "not needed",
            str(p["synced_by_schedule"]),
            *(f"{p['stored'][noun]} of {p['books'][noun]}" for noun in ("accounts", "transactions", "holdings")),
            str(p["rows"]["added"]),
            str(p["rows"]["changed"]),
            str(p["rows"]["removed"]),
        )
        for p in result["providers"]
    ]
    columns = (
        "provider",
        "integration",
        "status",
        "#refreshed",
        "#synced",
        "#accounts",
        "#transactions",
        "#holdings",
        "#rows added",
        "#changed",
        "#removed",
    )
    if result["ok"]:
        closing = f"[green]one complete cycle, driven by beat, in {result['seconds']} s[/]"
    else:
        closing = "\n".join(f"[red]did not happen:[/] {escape(what)}" for what in result["missing"])
    return Group(table(columns, rows), "", closing)
