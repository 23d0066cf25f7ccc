"""`dashtam refresh`: refresh one provider's token now."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from worker.cli.exits import Failed
from worker.cli.lookup import ProviderArgument, resolve
from worker.cli.output import AsJson, console, plain, print_json, say
from worker.cli.send import send
from worker.crud import steering
from worker.crud.fleet import history
from worker.crud.fleet.history import Attempt
from worker.errors import RateLimited, ReauthRequired, Refused, Transient, Unavailable, Unsent
from worker.models.vocabulary import AttemptStatus
from worker.runtime import Runtime, get_runtime

TASK = "worker.tasks.tokens.refresh_providers"
_POLL_SECONDS = 0.2
# A clock of this machine that is ahead of the workers' must not hide their attempt.
_CLOCK_SLACK = timedelta(seconds=5)


def refresh(
    provider: ProviderArgument,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the outcome.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Refresh a provider's token now, through the same task that the schedule sends.

    Exits 3 when its user must link it again, 4 when Redis or the provider is out of reach; it then stays due.

    [bold]Example[/]

    dashtam refresh "Schwab one" --wait
    """
    runtime = get_runtime()
    asked_at = datetime.now(UTC)
    with runtime.transaction() as session:
        row = resolve(session, provider)
        known = {attempt.id for attempt in history.attempts(session, provider_ids=[row.id], limit=5)}
        claimed = asked_at + timedelta(seconds=runtime.settings.claim_seconds)
        steering.make_due(session, provider_id=row.id, what="refresh", at=claimed)
    task_id = _ask(runtime, row.id, asked_at)
    if not wait:
        if as_json:
            print_json({"id": row.id, "task_id": task_id})
        else:
            say(f"asked for a refresh of {plain(row.alias)}; `dashtam refresh --wait` waits for the outcome")
        return
    with console.status("waiting for a worker") if console.is_terminal and not as_json else _Silence():
        attempt = _wait(runtime, row.id, known, since=asked_at - _CLOCK_SLACK, seconds=timeout)
    if as_json:
        print_json(attempt)
    elif attempt.status == AttemptStatus.DONE:
        say(f"[green]refreshed[/] {plain(row.alias)}; its token is now of generation {attempt.generation + 1}")
    _judge(attempt, row.alias)


def _ask(runtime: Runtime, provider_id: UUID, now: datetime) -> str:
    try:
        return send(TASK, [str(provider_id)], trigger="manual", force=True)
    except Unavailable:
        with runtime.transaction() as session:
            steering.make_due(session, provider_id=provider_id, what="refresh", at=now)
        raise


def _wait(runtime: Runtime, provider_id: UUID, known: set[UUID], *, since: datetime, seconds: float) -> Attempt:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with runtime.transaction() as session:
            attempts = history.attempts(session, provider_ids=[provider_id], since=since, limit=5)
        for attempt in attempts:
            if attempt.id not in known and attempt.status != AttemptStatus.SENT:
                return attempt
        time.sleep(_POLL_SECONDS)
    raise Unavailable(f"no worker has finished it within {seconds:g} s; it stays due. `dashtam status` shows workers")


def _judge(attempt: Attempt, alias: str) -> None:
    """Raises what a failed attempt means for the exit code."""
    if attempt.status == AttemptStatus.DONE:
        return
    what = (
        f"the refresh of {alias} ended {attempt.status}: {attempt.error or 'unknown'} ({attempt.reason or 'no reason'})"
    )
    if attempt.error == ReauthRequired.kind:
        raise Refused(f"{what}; its user must link it again")
    if attempt.error in (Transient.kind, Unsent.kind, RateLimited.kind) or attempt.status == AttemptStatus.DEFERRED:
        raise Unavailable(f"{what}; the schedule will try again")
    raise Failed(f"{what}; `dashtam explain` says what is next")


class _Silence:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None
