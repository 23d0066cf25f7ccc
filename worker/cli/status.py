"""`dashtam status`: shows the state of all logins, queues and processes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape

from worker.cli.ask import ask, remember_names
from worker.cli.output import AsJson, pairs, relative, show, table, trouble_lines
from worker.cli.output import status as coloured
from worker.errors import Unavailable


def status(
    as_json: AsJson = False,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to wait for workers to answer.")] = 0.5,
) -> None:
    """Show how many logins there are, what is due, what is late, and whether all processes work.

    Exits 4 if Postgres or the broker cannot be reached; if only the broker cannot, the data from Postgres is still
    shown.

    [bold]Examples[/]

    dashtam status

    dashtam status --json
    """
    from worker.services import health
    from worker.services.findings import require
    from worker.services.fleet import looking
    from worker.tasks import send

    now = datetime.now(UTC)
    transport = send.AskedOnce(seconds=seconds)
    troubles = ask(health.troubles, transport)
    require("postgres", troubles)
    data = ask(looking.status, now=now, broker=transport.broker(), troubles=troubles)
    show(data, as_json=as_json, render=lambda d: _render(d, now))
    remember_names()
    if not data["redis"]["reachable"]:
        raise Unavailable(f"{data['redis']['kind']} cannot be reached, so queues and workers are not shown")


def _render(data: dict[str, Any], now: datetime) -> RenderableType:
    fleet, beat, redis = data["providers"], data["beat"], data["redis"]
    rows = [
        ("providers", _providers(fleet)),
        ("refreshes", _due(fleet["refresh_due"], fleet["refresh_late"])),
        ("syncs", _due(fleet["sync_due"], fleet["sync_late"]) + f", {fleet['runs_running']} running"),
        ("tokens", _tokens(fleet, now)),
        ("grants", f"{fleet['grants_ending']} end within 72 hours"),
        ("quarantine", f"{fleet['quarantined']} records"),
        ("failures", f"{fleet['failures']} failed tasks"),
        ("notices", f"{fleet['notices_waiting']} waiting"),
        ("beat", _beat(beat, now)),
        ("queues", _queues(redis)),
        ("workers", _workers(redis)),
    ]
    integrations = table(
        ("integration", "breaker", "paused", "alarm"),
        [
            (
                key,
                coloured(state["breaker"]),
                state["paused_reason"] or ("yes" if state["paused"] else "no"),
                state["alarm"],
            )
            for key, state in data["integrations"].items()
        ],
    )
    return Group(*trouble_lines(data["troubles"]), pairs(rows), "", integrations)


def _providers(fleet: dict[str, Any]) -> str:
    others = ("needs_reauth", "paused", "pending", "unlinked")
    words = [f"{fleet[name]} {coloured(name)}" for name in others if fleet[name]]
    return ", ".join([f"[green]{fleet['active']} active[/]", *words])


def _due(due: int, late: int) -> str:
    return f"{due} due" + (f", [red]{late} late[/]" if late else ", none late")


def _tokens(fleet: dict[str, Any], now: datetime) -> str:
    oldest = fleet["oldest_token_expires_at"]
    if oldest is None:
        return "none expires"
    expired = f"[red]{fleet['tokens_expired']} expired[/], " if fleet["tokens_expired"] else ""
    word = "expires" if oldest > now else "expired"
    return f"{expired}the oldest {word} {relative(oldest, now)}"


def _beat(beat: dict[str, Any], now: datetime) -> str:
    if beat["last_tick"] is None:
        return "[red]no tick was ever recorded[/]"
    words = f"last tick {relative(beat['last_tick'], now)}"
    return f"[red]{words}[/]" if beat["late"] else words


def _workers(redis: dict[str, Any]) -> str:
    if not redis["reachable"]:
        return "not asked"
    return escape(", ".join(redis["workers"])) or "[red]none answers[/]"


def _queues(redis: dict[str, Any]) -> str:
    if not redis["reachable"]:
        return f"[red]{redis['kind']} cannot be asked[/]"
    waiting = ", ".join(f"{queue} {count}" for queue, count in redis["backlog"].items())
    return waiting if redis["in_flight"] is None else f"{waiting}; {redis['in_flight']} in flight"
