"""`dashtam run`: runs the whole worker on one machine, against the sandbox."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from worker.cli.exits import ExitCode, UsageProblem
from worker.cli.output import AsJson, SafeConsole, console, show
from worker.cli.run import environment, report
from worker.cli.run.cycle import started
from worker.devstack import Devstack, default_home, only_one
from worker.services import schema

_ONCE_ACCESS_SECONDS = 12
_LIVE_ACCESS_SECONDS = 60


def run(
    once: Annotated[bool, typer.Option("--once", help="One complete cycle, then a summary.")] = False,
    as_json: AsJson = False,
    access_seconds: Annotated[
        int | None, typer.Option(min=4, max=86400, help="Life of the sandbox's access tokens.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that --once may take.")] = 55.0,
) -> None:
    """Run everything on this machine: servers, sandbox, workers, beat, Flower and HTTP API.

    State is kept in .dashtam (or DASHTAM_HOME). With --once, the command ends after one cycle: it exits 0 if scheduled
    tasks have refreshed every token that expires and synced every login, else 1, and says what did not happen.

    [bold]Examples[/]

    dashtam run

    dashtam run --once --json
    """
    if as_json and not once:
        raise UsageProblem("--json goes with --once")
    access = access_seconds or (_ONCE_ACCESS_SECONDS if once else _LIVE_ACCESS_SECONDS)
    began = time.monotonic()
    home = default_home()
    # Messages are printed above the live table, so they must use the same console.
    notes = console if console.is_terminal and not once else SafeConsole(stderr=True, highlight=False, quiet=as_json)
    stack = Devstack(home, durable=True, say=lambda sentence: notes.print(sentence, markup=False))
    with only_one(home), stack.session() as urls:
        demonstration = environment.prepare(home, urls, access_seconds=access, once=once)
        schema.upgrade()
        with started(demonstration, access_seconds=access, live=not once, console=notes) as cycle:
            if not once:
                cycle.watch(console)
                return
            result = cycle.once(began=began, deadline=began + timeout)
    show(result, as_json=as_json, render=report.render)
    raise typer.Exit(ExitCode.OK if result["ok"] else ExitCode.FAILED)
