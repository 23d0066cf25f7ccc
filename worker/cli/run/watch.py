"""The live table of `dashtam run`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel

from worker.cli.demo_logins import LOGINS
from worker.cli.output import plain, relative, status, table
from worker.cli.run.demo import Story
from worker.cli.run.environment import Demonstration
from worker.devstack import ProcessState, ProcessStatus

_STATES = {
    ProcessState.RUNNING: "green",
    ProcessState.STARTING: "cyan",
    ProcessState.WAITING: "cyan",
    ProcessState.BACKOFF: "red",
}


def screen(demo: Demonstration, stories: Sequence[Story], processes: Sequence[ProcessStatus]) -> RenderableType:
    """Everything at a glance."""
    now = datetime.now(UTC)
    rows = [
        (
            plain(story.provider.alias),
            story.provider.provider_key,
            status(story.provider.status),
            relative(story.provider.access_expires_at, now),
            relative(story.provider.refreshed_at, now),
            relative(story.provider.refresh_due_at, now),
            relative(story.provider.synced_at, now),
            relative(story.provider.sync_due_at, now),
            str(story.stored.accounts),
            str(story.stored.transactions),
        )
        for story in stories
    ]
    columns = (
        "provider",
        "integration",
        "status",
        "token expires",
        "refreshed",
        "next refresh",
        "synced",
        "next sync",
        "#accounts",
        "#transactions",
    )
    body = table(columns, rows) if rows else "linking the demo user's providers…"
    return Group(Panel(body, title="dashtam", subtitle="Ctrl-C stops everything"), _processes(processes), _where(demo))


def _processes(processes: Sequence[ProcessStatus]) -> str:
    words = []
    for process in processes:
        colour = _STATES.get(process.state, "yellow")
        again = f" (restarted {process.restarts} times)" if process.restarts else ""
        words.append(f"[{colour}]{process.name}[/]{again}")
    return "  ".join(words)


def _where(demo: Demonstration) -> str:
    return (
        f"Flower    {demo.flower_url}  user [bold]{escape(demo.flower_user)}[/]  "
        f"password [bold]{escape(demo.flower_password)}[/]\n"
        f"HTTP API  {demo.web_url}/docs  key in {escape(str(demo.api_key_file))}\n"
        f"Logs      {escape(str(demo.home / 'log'))}\n"
        f"Commands  in another terminal here: dashtam status, dashtam providers, dashtam explain '{LOGINS[0].alias}'"
    )
