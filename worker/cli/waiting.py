"""Waiting for runs: a bar per provider while pages land, then what became of each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from worker.cli.exits import Failed
from worker.cli.output import console, plain, print_json
from worker.cli.runs import run_table
from worker.crud.fleet import history, overview
from worker.crud.fleet.history import Run
from worker.errors import Unavailable
from worker.models.vocabulary import RunStatus
from worker.runtime import Runtime

_POLL_SECONDS = 0.25
# A clock of this machine that is ahead of the workers' must not hide their runs.
_CLOCK_SLACK = timedelta(seconds=5)
_SHOWN = 20


def known_runs(runtime: Runtime, ids: Sequence[UUID], *, running_too: bool) -> set[UUID]:
    """Runs that were there before; a running one will do for an answer, unless `running_too`."""
    with runtime.transaction() as session:
        runs = history.runs(session, provider_ids=ids, limit=2 * len(ids) + 10)
    return {run.id for run in runs if running_too or run.status != RunStatus.RUNNING}


def wait_for_runs(
    runtime: Runtime, ids: Sequence[UUID], *, known: set[UUID], since: datetime, seconds: float, as_json: bool
) -> None:
    """Waits until each provider has a finished run that is not among `known`, then shows them.

    Raises:
        Unavailable: not all had one in time.
        Failed: a run did not complete.
    """
    with _Bars(runtime, ids, quiet=as_json) as bars:
        runs = _wait(runtime, ids, known, since - _CLOCK_SLACK, seconds, bars)
    if as_json:
        print_json(list(runs.values()))
    else:
        console.print(run_table(list(runs.values())))
    bad = [run for run in runs.values() if run.status in (RunStatus.FAILED, RunStatus.CANCELLED)]
    if bad:
        raise Failed(
            f"{len(bad)} of {len(runs)} runs ended {bad[0].status} ({bad[0].error_reason or 'no reason'}); committed "
            f"pages are kept. `dashtam runs show {bad[0].id}` says more"
        )


def _wait(
    runtime: Runtime, ids: Sequence[UUID], known: set[UUID], since: datetime, seconds: float, bars: _Bars
) -> dict[UUID, Run]:
    deadline = time.monotonic() + seconds
    while True:
        with runtime.transaction() as session:
            found = history.runs(session, provider_ids=ids, running_or_since=since, limit=2 * len(ids) + 10)
        # Newest first: an earlier run of the same provider is covered by the later one.
        runs: dict[UUID, Run] = {}
        for run in found:
            if run.id not in known:
                runs.setdefault(run.provider_id, run)
        bars.show(runs)
        if len(runs) == len(ids) and all(run.status != RunStatus.RUNNING for run in runs.values()):
            return runs
        if time.monotonic() >= deadline:
            left = len(ids) - sum(run.status != RunStatus.RUNNING for run in runs.values())
            raise Unavailable(
                f"{left} of {len(ids)} syncs have not ended within {seconds:g} s; they go on, or stay due"
            )
        time.sleep(_POLL_SECONDS)


class _Bars:
    """One line per provider, as long as there are few; for many, one line for all."""

    def __init__(self, runtime: Runtime, ids: Sequence[UUID], *, quiet: bool) -> None:
        self._count = len(ids)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            TextColumn("{task.fields[words]}"),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            transient=True,
        )
        self._tasks: dict[UUID, TaskID] = {}
        if self._count <= _SHOWN:
            with runtime.transaction() as session:
                rows = overview.list_providers(session, limit=_SHOWN, ids=ids)
            for row in rows:
                self._tasks[row.id] = self._progress.add_task(
                    plain(row.alias), total=None, words="waiting for a worker"
                )
        else:
            self._all = self._progress.add_task("all", total=self._count, words="")

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, runs: dict[UUID, Run]) -> None:
        """Brings the lines up to date."""
        if not self._tasks:
            ended = sum(run.status != RunStatus.RUNNING for run in runs.values())
            self._progress.update(self._all, completed=ended, words=f"{ended} of {self._count} ended")
        for provider_id, run in runs.items():
            if provider_id in self._tasks:
                rows = run.added + run.changed + run.unchanged + run.removed
                words = f"{run.status}: {run.pages} pages, {rows} rows ({run.added} new, {run.changed} changed)"
                self._progress.update(self._tasks[provider_id], words=words)
