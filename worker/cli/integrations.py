"""`dashtam integrations`: the kill switch and the circuit breaker of each."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import RenderableType
from rich.markup import escape

from worker.cli.exits import UsageProblem
from worker.cli.output import AsJson, print_json, say, show, status, table
from worker.cli.providers import operator
from worker.crud import integration_states
from worker.integrations.registry import REGISTRY
from worker.models import IntegrationState
from worker.runtime import get_runtime
from worker.services.availability import breaker

app = typer.Typer(help="List integrations, and pause or resume one as a whole.", invoke_without_command=True)

Key = Annotated[str, typer.Argument(help="schwab, plaid, …")]


@app.callback()
def default(ctx: typer.Context, as_json: AsJson = False) -> None:
    """`dashtam integrations` alone lists."""
    if ctx.invoked_subcommand is None:
        list_(as_json=as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List integrations with their breakers.

    [bold]Example[/]

    dashtam integrations list --json
    """
    runtime = get_runtime()
    with runtime.transaction() as session:
        states = integration_states.read_states(session)
    rows = [
        _row(key, states.get(key), enabled=key in runtime.settings.enabled_integrations) for key in sorted(REGISTRY)
    ]
    show(rows, as_json=as_json, render=_render)


def _row(key: str, state: IntegrationState | None, *, enabled: bool) -> dict[str, object]:
    row: dict[str, object] = {"provider_key": key, "enabled": enabled, "breaker": "closed", "failures": 0}
    names = ("paused_at", "paused_reason", "paused_by", "opened_at", "probe_at", "alarm", "alarm_at")
    row |= {name: None if state is None else getattr(state, name) for name in names}
    if state is not None:
        row |= {"breaker": state.breaker, "failures": state.failures}
    return row


def _render(rows: list[dict[str, object]]) -> RenderableType:
    names = ("enabled", "failures", "paused_at", "paused_by", "paused_reason", "probe_at", "alarm")
    columns = ("integration", "breaker", "enabled", "#failures", "paused", "by", "reason", "next probe", "alarm")
    return table(
        columns, [(str(r["provider_key"]), status(str(r["breaker"])), *(r[name] for name in names)) for r in rows]
    )


@app.command()
def pause(
    key: Key,
    reason: Annotated[str, typer.Option(help="Why; shown to whoever asks later.")] = "paused by an operator",
    as_json: AsJson = False,
) -> None:
    """Stop all calls of an integration; what is due stays due.

    [bold]Example[/]

    dashtam integrations pause schwab --reason "maintenance tonight"
    """
    _known(key)
    runtime = get_runtime()
    changed = runtime.run(breaker.pause(runtime, key, reason=reason, actor=operator()))
    _tell(key, changed, "paused", "was paused already", as_json=as_json)


@app.command()
def resume(key: Key, as_json: AsJson = False) -> None:
    """Let an integration's calls go on, close its breaker and clear its alarm.

    [bold]Example[/]

    dashtam integrations resume schwab
    """
    _known(key)
    runtime = get_runtime()
    changed = runtime.run(breaker.resume(runtime, key, actor=operator()))
    _tell(key, changed, "resumed", "was not paused; its breaker is closed", as_json=as_json)


def _known(key: str) -> None:
    if key not in REGISTRY:
        raise UsageProblem(f"no integration is named {key!r}; there are {', '.join(sorted(REGISTRY))}")


def _tell(key: str, changed: bool, new: str, unchanged: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"provider_key": key, "state": new, "changed": changed})
    else:
        say(f"{escape(key)} {'is ' + new if changed else unchanged}")
