"""The base task: errors mapped in one place, ids read with care, context on every log line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from celery import Celery
from structlog.testing import capture_logs

from worker.errors import NotFound, Unavailable
from worker.process.clocks import elapsed
from worker.runtime import get_runtime
from worker.tasks.base import WorkerTask, parse_ids

RunTask = Callable[[Callable[..., Any]], Any]


@pytest.fixture
def run_task(eager_app: Celery) -> Iterator[RunTask]:
    """Runs a function as a task of ours and gives what `get` gives."""
    name = f"tests.{uuid4().hex}"
    get_runtime().spool_told_at = elapsed()  # else the first task tells Postgres what this disk holds

    def run(body: Callable[..., Any]) -> Any:
        task = eager_app.task(body, base=WorkerTask, name=name)
        return task.delay().get()

    yield run
    eager_app.tasks.pop(name, None)


def test_result_is_handed_through(run_task: RunTask) -> None:
    def body() -> int:
        return 42

    assert run_task(body) == 42


def test_unreachable_server_ends_the_task_quietly_because_what_is_due_stays_due(run_task: RunTask) -> None:
    def body() -> None:
        raise Unavailable("Postgres: ConnectionTimeout")

    with capture_logs() as logs:
        assert run_task(body) is None

    assert [(line["event"], line["log_level"]) for line in logs] == [("task_postponed", "warning")]


@pytest.mark.deep
def test_own_error_is_logged_with_its_kind_and_fails_the_task(run_task: RunTask) -> None:
    def body() -> None:
        raise NotFound("no provider has the id 1")

    with capture_logs() as logs, pytest.raises(NotFound):
        run_task(body)

    assert [(line["event"], line["kind"]) for line in logs] == [("task_failed", "NotFound")]


@pytest.mark.deep
def test_process_whose_threads_stand_still_leaves_after_its_task(
    run_task: RunTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.tasks.base.is_wedged", lambda: True)

    def body() -> None:
        return

    with capture_logs() as logs, pytest.raises(SystemExit):
        run_task(body)

    assert [line["event"] for line in logs] == ["process_wedged"]


@pytest.mark.deep
def test_unknown_error_fails_the_task(run_task: RunTask) -> None:
    def body() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_task(body)


def test_log_lines_of_a_task_carry_its_id_and_name(run_task: RunTask) -> None:
    def body() -> dict[str, Any]:
        return structlog.contextvars.get_contextvars()

    context = run_task(body)

    assert UUID(context["task_id"])
    assert context["task"].startswith("tests.")
    assert "task_id" not in structlog.contextvars.get_contextvars()


@pytest.mark.deep
@pytest.mark.parametrize(
    "bad", ["", "../../x", "-1", -1, None, 1.5, {"id": 1}, "'; DROP TABLE providers", "a" * 10_000]
)
def test_what_is_no_id_is_left_out_and_not_repeated_in_the_log(bad: object) -> None:
    good = uuid4()

    with capture_logs() as logs:
        assert parse_ids([str(good), bad]) == [good]

    assert [line["event"] for line in logs] == ["bad_id_ignored"]
    assert "DROP" not in str(logs)


def test_ids_keep_their_order() -> None:
    ids = [uuid4() for _ in range(5)]

    assert parse_ids(map(str, ids)) == ids
