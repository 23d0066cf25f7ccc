"""Waits for runs: shows a progress bar for each provider while pages are stored, then the result of each run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import UUID

from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from worker.cli.ask import ask
from worker.cli.exits import Failed
from worker.cli.output import console, plain, plural, print_json, say
from worker.cli.runs import run_table
from worker.errors import Unavailable

if TYPE_CHECKING:
    from worker.models.fleet import Run
    from worker.services.fleet.asking import Asked

_POLL_SECONDS = 0.25
_PATIENCE_SECONDS = 1.0
"""How long no run may be seen before it is asked whether one will come."""
_RUNNING = "running"
_BAD = ("failed", "cancelled")


def wait_for_runs(asked: Asked, *, seconds: float, as_json: bool) -> None:
    """Waits until each provider has a finished run for the requested sync, then shows the runs.

    Raises:
        Refused: no run will come, because workers refuse the sync of the login that was named.
        Unavailable: not all providers had such a run in time.
        Failed: a run did not complete.
    """
    with _Bars(asked, quiet=as_json) as bars:
        runs = _wait(asked, seconds, bars)
    if (left := len(asked.ids) - len(runs)) and not as_json:
        say(f"{plural(left, 'login')} left out: synced a moment ago, or not active any more")
    if as_json:
        print_json(list(runs.values()))
    else:
        console.print(run_table(list(runs.values())))
    bad = [run for run in runs.values() if run.status in _BAD]
    if bad:
        raise Failed(
            f"{len(bad)} of {len(runs)} runs ended {bad[0].status} ({bad[0].error_reason or 'no reason'}); committed "
            f"pages are kept. `dashtam runs show {bad[0].id}` says more"
        )


def _wait(asked: Asked, seconds: float, bars: _Bars) -> dict[UUID, Run]:
    """The finished run of each login, without those whose sync workers refuse."""
    from worker.services.fleet import asking

    ids = set(asked.ids)
    began = time.monotonic()
    ask_why_at = began + _PATIENCE_SECONDS
    while True:
        runs = ask(asking.runs_of, asked)
        bars.show(runs)
        now = time.monotonic()
        if (missing := ids - runs.keys()) and now >= ask_why_at:
            refused = ask(asking.refused, asked, list(missing))
            if refused and asked.rows:
                raise next(iter(refused.values()))
            ids -= refused.keys()
            ask_why_at = now + _PATIENCE_SECONDS
        if ids <= runs.keys() and all(run.status != _RUNNING for run in runs.values()):
            return runs
        if now >= began + seconds:
            left = len(ids) - sum(run.status != _RUNNING for run in runs.values())
            raise Unavailable(
                f"{left} of {len(ids)} syncs have not ended within {seconds:g} s; they go on, or are done later"
            )
        time.sleep(_POLL_SECONDS)


class _Bars:
    """One line for each named login, or one line for all logins with `--all`."""

    def __init__(self, asked: Asked, *, quiet: bool) -> None:
        self._count = len(asked.ids)
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
        if asked.rows:
            for row in asked.rows:
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
        """Updates the lines."""
        if not self._tasks:
            ended = sum(run.status != _RUNNING for run in runs.values())
            self._progress.update(self._all, completed=ended, words=f"{ended} of {self._count} ended")
        for provider_id, run in runs.items():
            if provider_id in self._tasks:
                rows = run.added + run.changed + run.unchanged + run.removed
                words = f"{run.status}: {run.pages} pages, {rows} rows ({run.added} new, {run.changed} changed)"
                self._progress.update(self._tasks[provider_id], words=words)
