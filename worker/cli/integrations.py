"""`dashtam integrations`: lists integrations with their state, pauses and resumes them, writes and checks new ones."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.markup import escape

from worker.cli.ask import IntegrationArgument, ask, operator
from worker.cli.exits import Failed, UsageProblem
from worker.cli.output import AsJson, lists_alone, plain, print_json, say, show, status, table

if TYPE_CHECKING:
    from worker.models.fleet import IntegrationRow

app = typer.Typer(
    help="List integrations, pause or resume one, write a new one and check it.", invoke_without_command=True
)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List integrations with their breakers, and packages that cannot be used, with the reason.

    [bold]Example[/]

    dashtam integrations list --json
    """
    from worker.services.fleet import looking

    show(ask(looking.integrations), as_json=as_json, render=_render)


lists_alone(app, list_)


def _render(rows: list[IntegrationRow]) -> RenderableType:
    columns = ("integration", "breaker", "enabled", "#failures", "paused", "by", "reason", "next probe", "alarm")
    listed = table(
        columns,
        [
            (r.provider_key, status(r.breaker), r.enabled, r.failures, r.paused_at, plain(r.paused_by),
             plain(r.paused_reason), r.probe_at, plain(r.alarm))
            for r in rows
            if r.unusable is None
        ],
    )  # fmt: skip
    broken = [
        f"[red]cannot be used:[/] {plain(r.provider_key)} of {plain(r.package)}: {plain(r.unusable)}"
        for r in rows
        if r.unusable is not None
    ]
    return Group(listed, *broken)


@app.command()
def new(
    key: Annotated[str, typer.Argument(help="Small letters, digits and _; becomes the prefix of its variables.")],
    directory: Annotated[Path, typer.Option("--in", help="Where its folder is written.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """Write the folder of a new integration, with a stand-in against which it works.

    The folder is a package with an entry point, by which the worker finds it after it is installed. With
    --in worker/integrations, in a checkout, it becomes one of the worker's own integrations.

    [bold]Example[/]

    dashtam integrations new toy --in ~/src
    """
    from worker.integrations.kit.new import KeyRefused, write_new
    from worker.integrations.registry import REGISTRY, faults

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
def check(key: IntegrationArgument, as_json: AsJson = False) -> None:
    """Check an integration against its own stand-in, without a network, and say what is missing.

    Exits 1 if something is missing.

    [bold]Example[/]

    dashtam integrations check schwab
    """
    from worker.integrations.kit.contract import Subject, run
    from worker.integrations.registry import REGISTRY, faults
    from worker.sandbox.stand_ins import StandInError, stand_in
    from worker.services.fleet.looking import require_integration

    broken = {fault.key: fault for fault in faults()}
    if key not in REGISTRY and key in broken:
        raise Failed(f"{key} of {broken[key].package} cannot be used: {broken[key].reason}")
    require_integration(key)
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
        raise Failed(f"{len(bad)} of {len(results)} checks found something missing")


@app.command()
def pause(
    key: IntegrationArgument,
    reason: Annotated[str, typer.Option(help="Why; shown to everybody who asks later.")] = "paused by an operator",
    as_json: AsJson = False,
) -> None:
    """Stop all calls of an integration; pending work is kept.

    [bold]Example[/]

    dashtam integrations pause schwab --reason "maintenance tonight"
    """
    from worker.services.availability import breaker
    from worker.services.fleet.looking import require_integration

    require_integration(key)
    changed = ask(breaker.pause, key, reason=reason, actor=operator())
    _tell(key, changed, "paused", "was paused already", as_json=as_json)


@app.command()
def resume(key: IntegrationArgument, as_json: AsJson = False) -> None:
    """Resume an integration's calls, close its breaker and clear its alarm.

    [bold]Example[/]

    dashtam integrations resume schwab
    """
    from worker.services.availability import breaker
    from worker.services.fleet.looking import require_integration

    require_integration(key)
    changed = ask(breaker.resume, key, actor=operator())
    _tell(key, changed, "resumed", "was not paused; its breaker is closed", as_json=as_json)


def _tell(key: str, changed: bool, new: str, unchanged: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"provider_key": key, "state": new, "changed": changed})
    else:
        say(f"{escape(key)} {'is ' + new if changed else unchanged}")
