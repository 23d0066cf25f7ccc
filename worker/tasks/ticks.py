"""Ticks: tasks that the schedule sends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

from schedules import ENTRIES
from worker.app import app
from worker.runtime import Runtime, get_runtime
from worker.services import upkeep
from worker.tasks.base import WorkerTask


def tick(name: str) -> Callable[[Callable[[Runtime, datetime], object]], Any]:
    """Makes a function the task of the entry `name` in `schedules`, which has its interval and its expiry.

    The function is called with the process's runtime and the database's time. When it has run to its end, its heartbeat
    is stored under that name, at that time.

    Raises:
        KeyError: the schedule has no such entry.
    """
    task_name, _ = ENTRIES[name]

    def decorate(work: Callable[[Runtime, datetime], object]) -> Any:
        @wraps(work)
        def run() -> None:
            runtime = get_runtime()
            now = runtime.run(runtime.now())
            work(runtime, now)
            runtime.run(upkeep.beat(runtime, name, now))

        del run.__wrapped__  # Celery checks calls by its parameters
        return app.task(base=WorkerTask, name=task_name)(run)

    return decorate
