"""`dashtam refresh`: refreshes one provider's token now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.ask import ProviderArgument, ask
from worker.cli.exits import Failed
from worker.cli.output import AsJson, console, plain, print_json, say
from worker.errors import RateLimited, ReauthRequired, Refused, Transient, Unavailable, Unsent

if TYPE_CHECKING:
    from worker.models.fleet import Attempt
    from worker.services.fleet.asking import Asked

_POLL_SECONDS = 0.2
_DONE, _DEFERRED = "done", "deferred"


def refresh(
    provider: ProviderArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Refresh a provider's token now, through the same task that the schedule sends.

    Exits 3 if its user must link it again, 4 if Redis or the provider cannot be reached; then it is refreshed later.

    [bold]Example[/]

    dashtam refresh "Schwab one" --wait
    """
    from worker.services.fleet import asking
    from worker.tasks.send import send

    asked = ask(asking.refresh, provider, send=send)
    (row,) = asked.rows
    if not wait:
        if as_json:
            print_json({"id": row.id, "task_id": asked.task_ids[0]})
        else:
            say(f"asked for a refresh of {plain(row.alias)}; `dashtam refresh {row.id} --wait` waits for the outcome")
        return
    with console.status("waiting for a worker") if console.is_terminal and not as_json else _Silence():
        attempt = _wait(asked, seconds=timeout)
    if as_json:
        print_json(attempt)
    elif attempt.status == _DONE:
        say(f"[green]refreshed[/] {plain(row.alias)}; its token is now of generation {attempt.generation + 1}")
    _judge(attempt, row.alias)


def _wait(asked: Asked, *, seconds: float) -> Attempt:
    from worker.services.fleet import asking

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (attempt := ask(asking.attempt_of, asked)) is not None:
            return attempt
        time.sleep(_POLL_SECONDS)
    raise Unavailable(
        f"no worker has finished it within {seconds:g} s; it is done later. `dashtam status` shows workers"
    )


def _judge(attempt: Attempt, alias: str) -> None:
    """Raises the error, and so sets the exit code, for a failed attempt."""
    if attempt.status == _DONE:
        return
    what = (
        f"the refresh of {alias} ended {attempt.status}: {attempt.error or 'unknown'} ({attempt.reason or 'no reason'})"
    )
    if attempt.error == ReauthRequired.kind:
        raise Refused(f"{what}; its user must link it again")
    if attempt.error in (Transient.kind, Unsent.kind, RateLimited.kind) or attempt.status == _DEFERRED:
        raise Unavailable(f"{what}; the schedule will try again")
    raise Failed(f"{what}; `dashtam explain {attempt.provider_id}` says what is next")


class _Silence:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
