"""`dashtam failures`: tasks that were given up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from rich.console import RenderableType

from worker.cli.lookup import parse_id
from worker.cli.output import AsJson, pairs, plain, print_json, say, show, table
from worker.cli.providers import operator
from worker.cli.send import send
from worker.crud import steering
from worker.crud.fleet import history
from worker.crud.fleet.history import Failure
from worker.errors import Refused
from worker.runtime import get_runtime

app = typer.Typer(help="Look at tasks that were given up, and send them again.", invoke_without_command=True)

FailureId = Annotated[str, typer.Argument(metavar="FAILURE", help="Id of a failure.")]


@app.callback()
def default(ctx: typer.Context, as_json: AsJson = False) -> None:
    """`dashtam failures` alone lists."""
    if ctx.invoked_subcommand is None:
        list_(as_json=as_json)


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Also those that were sent again.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first: tasks that exhausted their attempts, or killed their worker too often.

    [bold]Example[/]

    dashtam failures list
    """
    with get_runtime().transaction() as session:
        failures = history.task_failures(session, resolved=all_, limit=limit)
    show(failures, as_json=as_json, render=_list)


def _list(failures: list[Failure]) -> RenderableType:
    return table(
        ("id", "task", "reason", "#deliveries", "when", "resolved"),
        [(str(f.id), f.task_name, plain(f.reason), f.deliveries, f.created_at, f.resolution) for f in failures],
    )


@app.command("show")
def show_(failure: FailureId, as_json: AsJson = False) -> None:
    """Show one dead letter; its arguments are ids only.

    [bold]Example[/]

    dashtam failures show 0198c2f4-…
    """
    with get_runtime().transaction() as session:
        data = history.task_failure(session, failure_id=parse_id(failure, "failure"))
    show(data, as_json=as_json, render=_show)


def _show(failure: Failure) -> RenderableType:
    return pairs(
        [
            ("id", str(failure.id)),
            ("task", failure.task_name),
            ("message", failure.task_id),
            ("arguments", plain(msgspec.json.encode(failure.arguments).decode())),
            ("reason", plain(failure.reason)),
            ("deliveries", failure.deliveries),
            ("when", failure.created_at),
            ("resolved", failure.resolved_at),
            ("resolution", plain(failure.resolution)),
        ]
    )


@app.command()
def replay(failure: FailureId, as_json: AsJson = False) -> None:
    """Send a given-up task again, as a new message.

    [bold]Example[/]

    dashtam failures replay 0198c2f4-…
    """
    runtime = get_runtime()
    with runtime.transaction() as session:
        found = history.task_failure(session, failure_id=parse_id(failure, "failure"))
    if found.resolved_at is not None:
        raise Refused(f"it was resolved before ({found.resolution}); nothing was sent")
    arguments = found.arguments
    task_id = send(found.task_name, *arguments.get("args", []), **arguments.get("kwargs", {}))
    with runtime.transaction() as session:
        steering.resolve_failure(
            session, failure_id=found.id, resolution=f"sent again by {operator()} as {task_id}", now=datetime.now(UTC)
        )
    if as_json:
        print_json({"id": found.id, "task_id": task_id})
    else:
        say(f"sent {found.task_name} again as {task_id}")
