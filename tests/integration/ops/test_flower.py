"""Flower asks for a password, looks and does not touch, and shows ids and no other arguments."""

from __future__ import annotations

import sys
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery

from tests.integration.ops.conftest import PASSWORD, FlowerProcess, StartFlower, seen
from tests.support.worker_nodes import Worker

pytestmark = pytest.mark.deep  # each Flower takes seconds to start

TASK = "worker.tasks.tokens.refresh_providers"


@pytest.mark.parametrize("path", ["/", "/tasks", "/api/tasks", "/api/workers", "/metrics"])
@pytest.mark.parametrize("password", [None, "wrong"])
def test_nothing_is_shown_without_the_password(flower: FlowerProcess, path: str, password: str | None) -> None:
    assert flower.ask(path, password=password)[0] == 401
    assert flower.ask(path)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        f"/api/task/async-apply/{TASK}",
        f"/api/task/send-task/{TASK}",
        f"/api/task/apply/{TASK}",
        "/api/worker/shutdown/shared@tests",
        "/api/worker/pool/shrink/shared@tests?n=1",
        "/api/task/revoke/0198f0de-0000-7000-8000-000000000001",
    ],
)
def test_it_does_not_touch_unless_told(flower: FlowerProcess, path: str) -> None:
    status, _ = flower.ask(path, body={"args": [[]]})

    assert status == 403


def test_arguments_are_reduced_to_ids(flower: FlowerProcess, celery_application: Celery, celery_worker: Worker) -> None:
    provider_id = str(uuid4())
    task_id = celery_application.send_task(TASK, args=[[provider_id, "planted-secret-in-arguments"]]).id

    info = seen(flower, task_id)
    _, page = flower.ask(f"/task/{task_id}")
    _, listed = flower.ask("/api/tasks")

    for shown in (info, page, listed):
        assert provider_id in shown
        assert "planted-secret-in-arguments" not in shown


@pytest.mark.parametrize(
    ("command", "password", "why"),
    [
        ((), "", "error: FLOWER_PASSWORD: is required"),
        (("--basic_auth=",), PASSWORD, "error: Flower does not start without a password"),
    ],
)
def test_it_does_not_start_without_a_password(
    start_flower: StartFlower, command: tuple[str, ...], password: str, why: str
) -> None:
    flower = start_flower("flower-open", command=command, wait=False, FLOWER_PASSWORD=password)

    assert flower.process.wait() != 0
    assert why in flower.process.logs()
    assert "Traceback" not in flower.process.logs()


_SIGTERM_IN_THE_START_OF_A_THREAD = """
import os, signal, sys, threading
from celery.__main__ import main

begin = threading.Thread.start


def start(thread):
    begin(thread)
    if "ThreadPoolExecutor" in thread.name and threading.Thread.start is start:
        threading.Thread.start = begin
        os.kill(os.getpid(), signal.SIGTERM)


threading.Thread.start = start
sys.exit(main())
"""


def test_sigterm_at_the_start_of_a_pool_s_first_thread_stops_it(start_flower: StartFlower) -> None:
    program = (sys.executable, "-c", _SIGTERM_IN_THE_START_OF_A_THREAD, "-A", "worker.app", "flower")

    flower = start_flower("flower-told-early", program=program, wait=False, FLOWER_PASSWORD=PASSWORD)

    assert flower.process.wait() == 0, flower.process.logs()
    assert "Visit me at" in flower.process.logs()


def test_password_is_in_no_log_and_no_argument(flower: FlowerProcess) -> None:
    flower.ask("/")

    assert PASSWORD not in flower.process.logs()
    assert PASSWORD not in Path(f"/proc/{flower.process.pid}/cmdline").read_text()
