"""Flower asks for a password, looks and does not touch, and shows ids and no other arguments."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery

from tests.integration.ops.conftest import PASSWORD, FlowerProcess, StartFlower
from tests.support.nodes import Worker
from tests.support.waiting import wait_for

TASK = "worker.tasks.tokens.refresh_providers"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def seen(flower: FlowerProcess, task_id: str, state: str = "SUCCESS") -> str:
    """What Flower's API says of a task, once it has ended."""

    def ended() -> str:
        status, body = flower.ask(f"/api/task/info/{task_id}")
        return body if status == 200 and json.loads(body)["state"] == state else ""

    return wait_for(ended, seconds=20, what=f"Flower to see {task_id} as {state}")


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
        f"/api/task/revoke/{uuid4()}",
    ],
)
def test_it_does_not_touch_unless_told(flower: FlowerProcess, path: str) -> None:
    status, _ = flower.ask(path, body={"args": [[]]})

    assert status == 403


def test_manual_trigger_can_be_allowed(start_flower: StartFlower, celery_worker: Worker) -> None:
    flower = start_flower("flower-triggers", FLOWER_PASSWORD=PASSWORD, FLOWER_ALLOW_TRIGGERS="1")

    status, body = flower.ask(f"/api/task/async-apply/{TASK}", body={"args": [[str(uuid4())]]})

    assert status == 200, body
    seen(flower, json.loads(body)["task-id"])


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
    ("command", "why"),
    [(("--conf=flowerconfig.py",), "FLOWER_PASSWORD: is required"), (("--conf=/dev/null",), "without authentication")],
)
def test_it_does_not_start_without_a_password(start_flower: StartFlower, command: tuple[str, ...], why: str) -> None:
    flower = start_flower("flower-open", command=command, wait=False)

    assert flower.process.wait(20) != 0
    assert why in flower.process.logs()
    assert "Traceback" not in flower.process.logs()


def test_it_sees_its_workers_and_stops_at_once(start_flower: StartFlower, celery_worker: Worker) -> None:
    flower = start_flower("flower-stopped", FLOWER_PASSWORD=PASSWORD)
    wait_for(lambda: "shared@tests" in flower.ask("/api/workers?refresh=1")[1], what="Flower to see the worker")

    flower.process.signal(signal.SIGTERM)

    assert flower.process.wait(8) == 0


def test_password_is_in_no_log_and_no_argument(flower: FlowerProcess) -> None:
    flower.ask("/")

    assert PASSWORD not in flower.process.logs()
    assert PASSWORD not in Path(f"/proc/{flower.process.pid}/cmdline").read_text()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page is not looked at, all else is tested")
def test_page_in_a_browser_lists_the_tasks(
    flower: FlowerProcess, celery_application: Celery, celery_worker: Worker, tmp_path: Path, images: Path
) -> None:
    provider_ids = [str(uuid4()) for _ in range(3)]
    for provider_id in provider_ids:
        seen(flower, celery_application.send_task(TASK, args=[[provider_id]]).id)

    dom = browse(flower, "--dump-dom", profile=tmp_path / "one")

    for provider_id in provider_ids:
        assert provider_id in dom
    assert TASK in dom

    picture = tmp_path / "flower.png"
    browse(flower, f"--screenshot={picture}", "--window-size=1400,800", profile=tmp_path / "two")
    assert picture.read_bytes().startswith(b"\x89PNG")
    if os.environ.get("KEEP_SCREENSHOTS"):
        images.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, images / "flower.png")


def browse(flower: FlowerProcess, *what: str, profile: Path) -> str:
    assert BROWSER is not None
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
        *(f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--timeout=20000"),
    )
    address = flower.url("/tasks", credentials=f"operator:{PASSWORD}")
    done = subprocess.run([BROWSER, *options, *what, address], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout
