"""The live table of `dashtam run`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from worker.cli.demo_logins import LOGINS
from worker.cli.output import NOTHING, plain, relative
from worker.cli.run.environment import Demonstration
from worker.cli.run.lookout import Seen
from worker.devstack import ProcessState, ProcessStatus
from worker.models.vocabulary import ProviderStatus
from worker.services.findings import Finding

_WIDE = 110
"""From this width on, all columns are shown; in a narrower terminal, the table has fewer columns and fits into 80."""
_LABEL = "{:<9} "
_PROCESSES = {
    ProcessState.RUNNING: ("green", "up"),
    ProcessState.STARTING: ("cyan", "starting"),
    ProcessState.WAITING: ("cyan", "waiting"),
    ProcessState.BACKOFF: ("red", "ended, starts again"),
    ProcessState.STOPPING: ("yellow", "stopping"),
    ProcessState.STOPPED: ("red", "stopped"),
}
_WORDS = {
    ProviderStatus.ACTIVE: ("green", "active"),
    ProviderStatus.NEEDS_REAUTH: ("red", "needs its user"),
    ProviderStatus.PAUSED: ("yellow", "paused"),
    ProviderStatus.PENDING: ("yellow", "not linked"),
    ProviderStatus.UNLINKED: ("yellow", "unlinked"),
}
_TROUBLES_SHOWN = 3
_STALE = timedelta(seconds=5)
_COLUMNS = ("provider", "integration", "state", "refreshed", "next refresh", "synced", "next sync")
_NARROW = {"provider": 14, "state": 14}


def screen(
    demo: Demonstration,
    seen: Seen,
    processes: Sequence[ProcessStatus],
    *,
    width: int,
    now: datetime | None = None,
    with_key: bool = False,
) -> RenderableType:
    """The whole screen; what is wrong comes first, in sentences.

    `with_key` adds the API key to the status page's address: only for a terminal, never where a log may keep it.
    """
    now = now or datetime.now(UTC)
    is_down = any(not trouble.ok for trouble in seen.troubles)
    body = _table(seen, now, wide=width >= _WIDE) if seen.stories else "linking the demo user's providers…"
    panel = Panel(
        body,
        title="dashtam",
        subtitle=_subtitle(seen, now),
        border_style="red" if is_down else "none",
    )
    return Group(*_troubles(seen.troubles), panel, _processes(processes), _where(demo, with_key=with_key))


def _troubles(troubles: Sequence[Finding]) -> list[Text]:
    lines = []
    for trouble in troubles[:_TROUBLES_SHOWN]:
        word, colour = ("note", "yellow") if trouble.ok else ("trouble", "red")
        line = Text.from_markup(f"[bold {colour}]{_LABEL.format(word)}[/]{plain(trouble.sentence)}")
        lines += [line, Text.from_markup(f"{_LABEL.format('')}[bold]→ {plain(trouble.mend)}[/]")]
    if len(troubles) > _TROUBLES_SHOWN:
        lines.append(Text(f"{_LABEL.format('')}and {len(troubles) - _TROUBLES_SHOWN} more: dashtam status"))
    return lines


def _subtitle(seen: Seen, now: datetime) -> str:
    if seen.read_at is not None and now - seen.read_at > _STALE:
        return f"as it was {relative(seen.read_at, now)}; Ctrl-C stops everything"
    return "Ctrl-C stops everything"


def _table(seen: Seen, now: datetime, *, wide: bool) -> RenderableType:
    held = {trouble.check for trouble in seen.troubles}
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in _COLUMNS if wide else [column for column in _COLUMNS if column != "integration"]:
        made.add_column(column, no_wrap=True, overflow="ellipsis", max_width=None if wide else _NARROW.get(column))
    if wide:
        made.add_column("hook", no_wrap=True)
        made.add_column("accounts", justify="right", no_wrap=True)
        made.add_column("transactions", justify="right", no_wrap=True)
    for story in seen.stories:
        row, key = story.provider, story.provider.provider_key
        waits = row.status == ProviderStatus.ACTIVE and key in held
        works = row.status == ProviderStatus.ACTIVE and not waits
        colour, word = ("yellow", "waits") if waits else _WORDS[ProviderStatus(row.status)]
        cells = [plain(row.alias), *((key,) if wide else ()), f"[{colour}]{word}[/]"]
        cells += [relative(row.refreshed_at, now), _next(row.refresh_due_at, now) if works else NOTHING]
        cells += [relative(row.synced_at, now), _next(row.sync_due_at, now) if works else NOTHING]
        if wide:
            cells += [relative(row.hooked_at, now), str(story.stored.accounts), str(story.stored.transactions)]
        made.add_row(*cells)
    return made


def _next(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return NOTHING
    return "now" if moment <= now else relative(moment, now)


def _processes(processes: Sequence[ProcessStatus]) -> str:
    """One line for each state, with the processes in this state."""
    lines = []
    for state, (colour, word) in _PROCESSES.items():
        names = [_name(process) for process in processes if process.state is state]
        if names:
            lines.append(f"[{colour}]{_LABEL.format(word)}[/]{', '.join(names)}")
    return "\n".join(lines)


def _name(process: ProcessStatus) -> str:
    return f"{process.name} (restarted {process.restarts} times)" if process.restarts else process.name


def _where(demo: Demonstration, *, with_key: bool) -> str:
    address = demo.login_url if with_key else f"{demo.web_url}/status"
    return (
        f"Flower    {demo.flower_url}  user [bold]{escape(demo.flower_user)}[/]  "
        f"password [bold]{escape(demo.flower_password)}[/]\n"
        # As a link, it can still be clicked where a narrow terminal breaks it.
        f"Status    [link={address}]{escape(address)}[/link]\n"
        f"HTTP API  {demo.web_url}/docs  key in {escape(str(demo.api_key_file))}\n"
        f"Link      {demo.web_url}/demonstration  (an app whose user links a login in the browser)\n"
        f"Logs      {escape(str(demo.home / 'log'))}\n"
        f"Try       dashtam status, dashtam explain '{LOGINS[0].alias}' (in another terminal)"
    )
