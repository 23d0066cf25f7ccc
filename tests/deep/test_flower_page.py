"""Flower with what only some start it with, and its page in a browser."""

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

from tests.integration.ops.conftest import PASSWORD, FlowerProcess, StartFlower, flower, seen, start_flower
from tests.support.environment import ROOT
from tests.support.waiting import wait_for
from tests.support.worker_nodes import Worker

__all__ = ["flower", "start_flower"]  # fixtures

TASK = "worker.tasks.tokens.refresh_providers"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IMAGES = ROOT / "docs" / "images"
"""Where the picture for the documentation is kept; KEEP_SCREENSHOTS=1 renews it."""


def test_manual_trigger_can_be_allowed(start_flower: StartFlower, celery_worker: Worker) -> None:
    flower = start_flower("flower-triggers", FLOWER_PASSWORD=PASSWORD, FLOWER_ALLOW_TRIGGERS="1")

    status, body = flower.ask(f"/api/task/async-apply/{TASK}", body={"args": [[str(uuid4())]]})

    assert status == 200, body
    seen(flower, json.loads(body)["task-id"])


def test_it_sees_its_workers_and_stops_at_once(start_flower: StartFlower, celery_worker: Worker) -> None:
    flower = start_flower("flower-stopped", FLOWER_PASSWORD=PASSWORD)
    wait_for(lambda: "shared@tests" in flower.ask("/api/workers?refresh=1")[1], what="Flower to see the worker")

    flower.process.signal(signal.SIGTERM)

    assert flower.process.wait(8) == 0


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: the page is not looked at, all else is tested")
def test_page_in_a_browser_lists_the_tasks(
    flower: FlowerProcess, celery_application: Celery, celery_worker: Worker, tmp_path: Path
) -> None:
    provider_ids = [str(uuid4()) for _ in range(3)]
    for provider_id in provider_ids:
        seen(flower, celery_application.send_task(TASK, args=[[provider_id]]).id)

    dom = browse(flower, "--dump-dom", profile=tmp_path / "one")

    for provider_id in provider_ids:
        assert provider_id in dom
    assert TASK in dom

    picture = tmp_path / "flower.png"
    browse(flower, f"--screenshot={picture}", "--window-size=1700,700", profile=tmp_path / "two")
    assert picture.read_bytes().startswith(b"\x89PNG")
    if os.environ.get("KEEP_SCREENSHOTS"):
        shutil.copy(picture, IMAGES / "flower.png")


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
