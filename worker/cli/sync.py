"""`dashtam sync`: sync one provider, or all, now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from worker.cli.exits import UsageProblem
from worker.cli.lookup import resolve
from worker.cli.output import AsJson, plain, plural, print_json, say
from worker.cli.send import send
from worker.cli.waiting import known_runs, wait_for_runs
from worker.crud import steering
from worker.crud.fleet import history
from worker.crud.fleet.overview import ProviderRow
from worker.crud.sync import runs as run_queries
from worker.errors import Refused, Unavailable
from worker.models.vocabulary import RunStatus
from worker.runtime import Runtime, get_runtime

if TYPE_CHECKING:
    from worker.crud.database import OpenTransaction

TASK = "worker.tasks.accounts.sync_providers"


def sync(
    provider: Annotated[
        str | None, typer.Argument(help="Id, unique beginning of one, or unique alias.", show_default=False)
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every active provider.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait, and show pages and rows as they land.")] = False,
    full: Annotated[bool, typer.Option("--full", help="From scratch; what the provider no longer lists goes.")] = False,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Go back to this day.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Even if it was synced a moment ago.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop the running sync after its page.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds to wait.")] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Sync accounts now, through the same task that the schedule sends.

    Exits 1 when a run that was waited for failed, 3 when the provider's state does not allow it, 4 when Redis is out of
    reach; it then stays due.

    [bold]Examples[/]

    dashtam sync "Plaid one" --wait

    dashtam sync --all

    dashtam sync 0198c2 --full --wait
    """
    if (provider is None) != all_:
        raise UsageProblem("give one PROVIDER, or --all")
    if full and since:
        raise UsageProblem("--full already starts from the beginning; leave out --since")
    runtime = get_runtime()
    if cancel:
        _cancel(runtime, provider, as_json=as_json)
        return
    asked_at = datetime.now(UTC)
    anew = full or since is not None
    ids = _make_due(runtime, provider, asked_at, force=force, anew=anew)
    known = known_runs(runtime, ids, running_too=anew) if wait else set()
    _ask(runtime, ids, asked_at, options=_options(full=full, since=since, force=force))
    if wait:
        wait_for_runs(runtime, ids, known=known, since=asked_at, seconds=timeout, as_json=as_json)
    elif as_json:
        print_json({"ids": ids})
    else:
        say(f"asked for {plural(len(ids), 'sync')}; `dashtam runs` shows what becomes of it")


def _options(*, full: bool, since: datetime | None, force: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"trigger": "manual"}
    if full:
        options["mode"] = "full"
    if since:
        options["since"] = since.date().isoformat()
    if force:
        options["force"] = True
    return options


def _make_due(runtime: Runtime, provider: str | None, now: datetime, *, force: bool, anew: bool) -> list[UUID]:
    claimed = now + timedelta(seconds=runtime.settings.claim_seconds)
    with runtime.transaction() as session:
        if provider is None:
            return list(steering.make_all_syncs_due(session, at=claimed))
        row = resolve(session, provider)
        if anew:
            refuse_beside_another(session, row.id, dead_after=timedelta(seconds=runtime.settings.run_dead_seconds))
        if not force:
            _refuse_haste(session, row, now, least=timedelta(seconds=runtime.settings.sync_min_interval))
        steering.make_due(session, provider_id=row.id, what="sync", at=claimed)
        return [row.id]


def refuse_beside_another(session: OpenTransaction, provider_id: UUID, *, dead_after: timedelta) -> None:
    """What was asked for besides the usual would be lost: a run under way is not changed, and there is one at a time.

    Raises:
        Refused: a run of the provider is under way.
    """
    if history.is_running(session, provider_id=provider_id, dead_after=dead_after):
        raise Refused(f"provider {provider_id} is being synced; wait for that run, or stop it: dashtam sync --cancel")


def _refuse_haste(session: OpenTransaction, row: ProviderRow, now: datetime, *, least: timedelta) -> None:
    """What the worker would refuse too, said while somebody listens."""
    last = history.runs(session, provider_ids=[row.id], limit=1)
    if last and last[0].status != RunStatus.RUNNING and now - last[0].started_at < least:
        wait = int((last[0].started_at + least - now).total_seconds()) + 1
        raise Refused(f"{row.alias} was synced a moment ago; wait {wait} s, or pass --force")


def _ask(runtime: Runtime, ids: Sequence[UUID], now: datetime, *, options: dict[str, Any]) -> None:
    try:
        for batch in _batches(ids, runtime.settings.sync_batch_size):
            send(TASK, [str(id_) for id_ in batch], **options)
    except Unavailable:
        with runtime.transaction() as session:
            if len(ids) == 1:
                steering.make_due(session, provider_id=ids[0], what="sync", at=now)
            else:
                steering.make_all_syncs_due(session, at=now)
        raise


def _batches(ids: Sequence[UUID], size: int) -> list[Sequence[UUID]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def _cancel(runtime: Runtime, provider: str | None, *, as_json: bool) -> None:
    if provider is None:
        raise UsageProblem("--cancel takes one PROVIDER")
    with runtime.transaction() as session:
        row = resolve(session, provider)
        run_id = run_queries.request_cancel(session, provider_id=row.id)
    if run_id is None:
        raise Refused(f"{row.alias} is not being synced; there is nothing to cancel")
    if as_json:
        print_json({"id": row.id, "run_id": run_id, "cancel_requested": True})
    else:
        say(f"{plain(row.alias)}: its run stops after the page that it is at; what was committed is kept")
