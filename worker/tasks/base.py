"""The base class of all tasks: it counts deliveries, adds context to logs and maps errors. And the decorator `tick`.

Celery does not retry these tasks. When work is due is a column in Postgres, so the rows of a failed task stay due and a
later tick sends them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from typing import Any
from uuid import UUID

import structlog
from celery import Task

from schedules import ENTRIES
from worker.app import app
from worker.crud import failures, heartbeats
from worker.errors import DashtamError, Unavailable
from worker.process.logger import Logger
from worker.runtime import Runtime, get_runtime, is_wedged
from worker.services.refresh import spool

log = Logger(__name__)

MAX_DELIVERIES = 3


class WorkerTask(Task):  # type: ignore[misc, unused-ignore]
    """Base of all tasks.

    A message that was delivered three times and never finished (it kills its worker, or runs longer than the visibility
    timeout) is recorded as a failure and dropped; its rows stay due.
    """

    abstract = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the task, with its id in all log lines. `Unavailable` is logged as a warning, not raised."""
        request = self.request
        with structlog.contextvars.bound_contextvars(task_id=request.id, task=self.name, attempt=1):
            redelivered = bool((request.delivery_info or {}).get("redelivered"))
            try:
                if redelivered and not self._may_run_again(args, kwargs):
                    return None
                # Another host may be waiting for this host's list of spooled answers, so every task of every queue
                # brings that list up to date first.
                runtime = get_runtime()
                runtime.run(spool.settle(runtime))
                result = super().__call__(*args, **kwargs)
                if redelivered:
                    self._forget_deliveries()
            except Unavailable as error:
                log.warning("task_postponed", error=str(error), kept="pending work is kept")
                return None
            except DashtamError as error:
                log.error("task_failed", error=str(error), kind=type(error).__name__)
                raise
            finally:
                _leave_if_wedged()
            return result

    def _may_run_again(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        with get_runtime().transaction() as session:
            deliveries = failures.count_delivery(session, task_id=self.request.id)
            structlog.contextvars.bind_contextvars(attempt=deliveries)
            if deliveries < MAX_DELIVERIES:
                return True
            failures.record_task_failure(
                session,
                task_id=self.request.id,
                task_name=self.name,
                arguments={"args": list(args), "kwargs": kwargs},
                reason="delivered too often without an end",
                deliveries=deliveries,
            )
        log.error("task_dropped", deliveries=deliveries, next="dashtam failures list")
        return False

    def _forget_deliveries(self) -> None:
        with get_runtime().transaction() as session:
            failures.forget_delivery(session, task_id=self.request.id)


def tick(name: str) -> Callable[[Callable[[Runtime, datetime], object]], Any]:
    """Makes a function the task of the entry `name` in `schedules`; interval and expiry are set in that entry.

    The function is called with the process's runtime and the database's time. When it has finished without an error, a
    heartbeat with this name and this time is stored.

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
            runtime.run(runtime.db(heartbeats.beat, name=name, at=now))

        del run.__wrapped__  # Celery would check the arguments of a call against the wrapped function's parameters
        return app.task(base=WorkerTask, name=task_name)(run)

    return decorate


def _leave_if_wedged() -> None:
    """Ends a pool process whose threads hang, so that a new process with working threads replaces it.

    Raises:
        SystemExit: the pool treats it as the end of this task, and starts another process.
    """
    if is_wedged():
        log.critical("process_wedged", kept="pending work is kept", next="the pool starts another process")
        raise SystemExit("threads of this process hang")


def parse_ids(values: Iterable[object]) -> list[UUID]:
    """The provider ids in a message. A value that is not a UUID is logged and left out."""
    ids = []
    for value in values:
        try:
            ids.append(UUID(str(value)))
        except ValueError:
            log.warning("bad_id_ignored", length=len(str(value)))
    return ids
