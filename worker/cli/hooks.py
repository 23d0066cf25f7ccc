"""`dashtam hooks`: who is told of what happens, and what became of each delivery."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.console import RenderableType

from worker.cli.ask import ask, operator
from worker.cli.output import AsJson, plain, print_json, say, show, table
from worker.cli.times import moment_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.models.outbox import DeliveryRow, SubscriptionRow

app = typer.Typer(
    help="Say who is told of what happens: add, list, test, replay, rotate, resume and remove hooks.",
    no_args_is_help=True,
)

HookArgument = Annotated[
    str, typer.Argument(metavar="HOOK", help="Id or unique beginning of one; `list` shows them.", show_default=False)
]
_POLL_SECONDS = 0.2


@app.command()
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are posted, https://….", show_default=False)],
    event: Annotated[
        list[str] | None,
        typer.Option(help="sync.completed, provider.linked, …; may be given several times. Without: all events."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(help="E-mail address or id of the user whose events; without: all users' events.")
    ] = None,
    description: Annotated[str, typer.Option(help="What it is for.")] = "",
    as_json: AsJson = False,
) -> None:
    """Post events to an address from now on, and print the secret that signs them. It is shown only once.

    [bold]Examples[/]

    dashtam hooks add https://app.example.org/hooks/dashtam

    dashtam hooks add https://app.example.org/hooks/dashtam --event sync.completed --event provider.needs_reauth
    """
    from worker.services.outbox import subscriptions

    made = ask(
        subscriptions.add,
        url=url,
        events=event or [],
        user_id=_user(user),
        description=description,
        actor=operator(),
    )
    if as_json:
        print_json({"secret": made.secret, "hook": made.row})
    else:
        say(f"hook {made.row.id} is told of {', '.join(made.row.events)}; its secret:")
        typer.echo(made.secret)


def _user(given: str | None) -> UUID | None:
    from worker.services.linking.users import find_user

    return None if given is None else ask(find_user, given, create=False)


def _hook(given: str) -> UUID:
    from worker.services.outbox import subscriptions

    return ask(subscriptions.find, given)


@app.command("list")
def list_(
    user: Annotated[str | None, typer.Option(help="Only those of this e-mail address or user id.")] = None,
    as_json: AsJson = False,
) -> None:
    """List hooks, with what waits for each and what was given up.

    [bold]Example[/]

    dashtam hooks list
    """
    from worker.services.outbox import subscriptions

    show(ask(subscriptions.list_all, user_id=_user(user)), as_json=as_json, render=_list)


def _list(rows: list[SubscriptionRow]) -> RenderableType:
    columns = ("id", "url", "events", "user", "state", "waiting", "parked", "last received", "last error")
    return table(
        columns,
        [
            (
                str(row.id),
                plain(row.url),
                " ".join(row.events),
                plain(row.user) if row.user_id else "all",
                _state(row),
                row.waiting,
                row.parked,
                row.last_sent_at,
                plain(row.last_error) if row.last_error else None,
            )
            for row in rows
        ],
    )


def _state(row: SubscriptionRow) -> str:
    return f"disabled by {plain(row.disabled_by)}" if row.disabled_at else "failing" if row.failing_since else "works"


@app.command()
def deliveries(
    hook: HookArgument,
    state: Annotated[str | None, typer.Option(help="Only those that are waiting, parked or received.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000)] = 50,
    as_json: AsJson = False,
) -> None:
    """Show a hook's deliveries, newest first. One that is parked was given up, and can be replayed.

    [bold]Example[/]

    dashtam hooks deliveries 0199a --state parked
    """
    from worker.services.outbox import subscriptions

    if state not in (None, "waiting", "parked", "received"):
        raise typer.BadParameter(f"{state!r} is none of waiting, parked, received", param_hint="--state")
    rows = ask(subscriptions.list_deliveries, _hook(hook), state=state, limit=limit)
    show(rows, as_json=as_json, render=_deliveries)


def _deliveries(rows: Sequence[DeliveryRow]) -> RenderableType:
    columns = ("event", "type", "happened", "state", "attempts", "next", "error")
    return table(
        columns,
        [
            (
                str(row.event_id),
                row.type,
                row.created_at,
                row.state,
                row.attempts,
                row.due_at,
                plain(row.last_error) if row.last_error else None,
            )
            for row in rows
        ],
    )


@app.command("test")
def send_test(
    hook: HookArgument,
    wait: Annotated[float, typer.Option(min=0, max=600, help="How many seconds to wait for the result.")] = 30,
    as_json: AsJson = False,
) -> None:
    """Have a worker send the event `hook.test` to a hook, and say what came of it.

    [bold]Example[/]

    dashtam hooks test 0199a
    """
    from worker.errors import Refused
    from worker.services.outbox import subscriptions

    hook_id = _hook(hook)
    event_id = ask(subscriptions.test, hook_id, actor=operator())
    give_up_at = time.monotonic() + wait
    while True:
        (row,) = ask(subscriptions.list_deliveries, hook_id, event_id=event_id, limit=1)
        if row.sent_at or row.last_error or time.monotonic() >= give_up_at:
            break
        time.sleep(_POLL_SECONDS)
    if as_json:
        print_json(row)
    elif row.sent_at:
        say(f"received: it answered {row.status}")
    if row.last_error and not row.sent_at:
        raise Refused(f"the test was not received: {row.last_error}; it is tried again like any other event")
    if not row.sent_at:
        raise Refused(
            f"no worker has sent the test within {wait:g} s; it waits. See whether workers run: dashtam doctor"
        )


@app.command()
def replay(
    hook: HookArgument,
    event: Annotated[str | None, typer.Option(help="Only the event with this id.")] = None,
    since: Annotated[
        datetime | None, moment_option("All events since this time (UTC), those that were received, too.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send deliveries again, under the same ids. Without an option: those that were given up.

    [bold]Examples[/]

    dashtam hooks replay 0199a

    dashtam hooks replay 0199a --since 2026-01-05T10:00:00
    """
    from worker.services.outbox import subscriptions

    try:
        event_id = None if event is None else UUID(event)
    except ValueError:
        raise typer.BadParameter(f"{event!r} is no id; `deliveries` shows them", param_hint="--event") from None
    count = ask(subscriptions.replay, _hook(hook), event_id=event_id, since=since)
    if as_json:
        print_json({"deliveries": count})
    else:
        say(f"{count} deliveries are sent again")


@app.command()
def rotate(
    hook: HookArgument,
    hours: Annotated[int, typer.Option(min=0, max=720, help="How long the old secret signs, too.")] = 24,
    as_json: AsJson = False,
) -> None:
    """Give a hook a new secret and print it. It is shown only once. For a while, both secrets sign.

    [bold]Example[/]

    dashtam hooks rotate 0199a --hours 48
    """
    from worker.services.outbox import subscriptions

    made = ask(subscriptions.rotate, _hook(hook), actor=operator(), overlap=timedelta(hours=hours))
    if as_json:
        print_json({"secret": made.secret, "hook": made.row})
    else:
        typer.echo(made.secret)


@app.command()
def resume(hook: HookArgument, as_json: AsJson = False) -> None:
    """Send again, from now on, to a hook that its receiver has ended by 410 Gone, or that fails.

    [bold]Example[/]

    dashtam hooks resume 0199a
    """
    from worker.services.outbox import subscriptions

    hook_id = _hook(hook)
    changed = ask(subscriptions.resume, hook_id, actor=operator())
    if as_json:
        print_json({"id": hook_id, "changed": changed})
    else:
        say(f"hook {hook_id} is sent to{'' if changed else ', as it was'}")


@app.command()
def remove(hook: HookArgument, as_json: AsJson = False) -> None:
    """Remove a hook with its deliveries. Nothing more is sent to it.

    [bold]Example[/]

    dashtam hooks remove 0199a
    """
    from worker.services.outbox import subscriptions

    hook_id = _hook(hook)
    ask(subscriptions.remove, hook_id, actor=operator())
    if as_json:
        print_json({"id": hook_id, "removed": True})
    else:
        say(f"hook {hook_id} was removed")
