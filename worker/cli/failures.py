"""`dashtam failures`: lists failed tasks and sends them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import RenderableType

from worker.cli.ask import ask, operator
from worker.cli.output import AsJson, lists_alone, pairs, plain, print_json, say, short, show, table

if TYPE_CHECKING:
    from worker.models.fleet import Failure

app = typer.Typer(help="List failed tasks, and send them again.", invoke_without_command=True)

_SHOWN = 3

FailureId = Annotated[str, typer.Argument(metavar="FAILURE", help="Id of a failure, or its beginning.")]


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Also those that were sent again.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first: tasks that used up their attempts, or whose worker process died too often.

    [bold]Example[/]

    dashtam failures list
    """
    from worker.services.fleet import details

    failures = ask(details.failures, resolved=all_, limit=limit)
    show(failures, as_json=as_json, render=_list)


lists_alone(app, list_)


def _list(failures: list[Failure]) -> RenderableType:
    return table(
        ("id", "task", "providers", "reason", "#deliveries", "when", "resolved"),
        [
            (short(f.id), f.task_name.removeprefix("worker.tasks."), _providers(f), plain(f.reason), f.deliveries,
             f.created_at, plain(f.resolution))
            for f in failures
        ],
    )  # fmt: skip


def _providers(failure: Failure) -> str:
    """The first few aliases, because one message may be about hundreds of logins."""
    more = len(failure.aliases) - _SHOWN
    return plain(", ".join(failure.aliases[:_SHOWN]) or None) + (f" and {more} more" if more > 0 else "")


@app.command("show")
def show_(failure: FailureId, as_json: AsJson = False) -> None:
    """Show one dead letter. Its arguments are only ids.

    [bold]Example[/]

    dashtam failures show 0198c2f4-…
    """
    from worker.services.fleet import details

    data = ask(details.failure, failure)
    show(data, as_json=as_json, render=_show)


def _show(failure: Failure) -> RenderableType:
    return pairs(
        [
            ("id", str(failure.id)),
            ("task", failure.task_name),
            ("providers", _providers(failure)),
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
    """Send a failed task again, as a new message.

    [bold]Example[/]

    dashtam failures replay 0198c2f4-…
    """
    from worker.services.fleet import steering
    from worker.tasks.send import send

    found, task_id = ask(steering.replay_failure, failure, actor=operator(), send=send)
    if as_json:
        print_json({"id": found.id, "task_id": task_id})
    else:
        say(f"sent {found.task_name} again as {task_id}")
