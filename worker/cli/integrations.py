"""`dashtam integrations`: which there are and whether they are served, paused or broken; new ones and their checks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape

from worker.cli.exits import Failed, UsageProblem
from worker.cli.output import AsJson, print_json, say, show, status, table
from worker.cli.providers import operator
from worker.crud import integration_states
from worker.integrations.kit.new import KeyRefused, write_new
from worker.integrations.registry import REGISTRY, Fault, faults, package_of
from worker.models import IntegrationState
from worker.runtime import get_runtime
from worker.services.availability import breaker

app = typer.Typer(
    help="List integrations, pause or resume one as a whole, begin a new one and check it.", invoke_without_command=True
)

Key = Annotated[str, typer.Argument(help="schwab, plaid, …")]


@app.callback()
def default(ctx: typer.Context, as_json: AsJson = False) -> None:
    """`dashtam integrations` alone lists."""
    if ctx.invoked_subcommand is None:
        list_(as_json=as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List integrations with their breakers, and packages that cannot be used with the reason.

    [bold]Example[/]

    dashtam integrations list --json
    """
    runtime = get_runtime()
    with runtime.transaction() as session:
        states = integration_states.read_states(session)
    rows = [
        _row(key, states.get(key), enabled=key in runtime.settings.enabled_integrations) for key in sorted(REGISTRY)
    ]
    rows += [_unusable(fault) for fault in faults()]
    show(rows, as_json=as_json, render=_render)


def _unusable(fault: Fault) -> dict[str, object]:
    return _row(fault.key, None, enabled=False) | {"package": fault.package, "unusable": fault.reason, "breaker": None}


def _row(key: str, state: IntegrationState | None, *, enabled: bool) -> dict[str, object]:
    known = REGISTRY.get(key)
    row: dict[str, object] = {
        "provider_key": key,
        "name": known and known.name,
        "package": known and package_of(key),
        "link_kind": known and known.link_kind.name,
        "unusable": None,
        "enabled": enabled,
        "breaker": "closed",
        "failures": 0,
    }
    names = ("paused_at", "paused_reason", "paused_by", "opened_at", "probe_at", "alarm", "alarm_at")
    row |= {name: None if state is None else getattr(state, name) for name in names}
    if state is not None:
        row |= {"breaker": state.breaker, "failures": state.failures}
    return row


def _render(rows: list[dict[str, object]]) -> RenderableType:
    names = ("enabled", "failures", "paused_at", "paused_by", "paused_reason", "probe_at", "alarm")
    columns = ("integration", "breaker", "enabled", "#failures", "paused", "by", "reason", "next probe", "alarm")
    usable = [row for row in rows if row["unusable"] is None]
    listed = table(
        columns, [(str(r["provider_key"]), status(str(r["breaker"])), *(r[name] for name in names)) for r in usable]
    )
    broken = [
        f"[red]cannot be used:[/] {escape(str(r['provider_key']))} of {escape(str(r['package']))}: "
        f"{escape(str(r['unusable']))}"
        for r in rows
        if r["unusable"] is not None
    ]
    return Group(listed, *broken)


@app.command()
def new(
    key: Annotated[str, typer.Argument(help="Small letters, digits and _; becomes the prefix of its variables.")],
    directory: Annotated[Path, typer.Option("--in", help="Where its folder is written.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Write the folder of a new integration, which works against the stand-in that is in it.

    It is a package with the entry point that makes it known once it is installed. With
    --in worker/integrations, in a checkout, it becomes one of the worker's own.

    [bold]Example[/]

    dashtam integrations new toy --in ~/src
    """
    taken = frozenset(REGISTRY) | {fault.key for fault in faults()}
    try:
        folder = write_new(key, directory, taken=taken)
    except KeyRefused as error:
        raise UsageProblem(str(error)) from None
    if as_json:
        print_json({"provider_key": key, "folder": str(folder)})
    else:
        say(f"[green]written[/] {escape(str(folder))}")


@app.command()
def check(key: Key, as_json: AsJson = False) -> None:
    """Check an integration against its own stand-in, without a network, and say what is missing.

    Exits 1 when something is.

    [bold]Example[/]

    dashtam integrations check schwab
    """
    from worker.integrations.kit.contract import Subject, run  # the sandbox is needed by nothing else here
    from worker.sandbox.stand_ins import StandInError, stand_in

    broken = {fault.key: fault for fault in faults()}
    if key not in REGISTRY and key in broken:
        raise Failed(f"{key} of {broken[key].package} cannot be used: {broken[key].reason}")
    _known(key)
    try:
        subject = Subject(REGISTRY[key], stand_in(key))
    except (KeyError, StandInError) as error:
        reason = "it has no module stand_in beside it" if isinstance(error, KeyError) else str(error)
        raise Failed(f"{key} cannot be checked: {reason}; see docs/adding-an-integration.md") from None
    results = []
    for result in run(subject):
        results.append(result)
        if not as_json:
            missing = f"[red]missing[/] {result.check}: {escape(result.missing)}"
            say(missing if result.missing else f"[green]ok[/]      {result.check}")
    if as_json:
        print_json(results)
    bad = [result for result in results if result.missing]
    if bad:
        raise Failed(f"{len(bad)} of {len(results)} checks say that something is missing")


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
