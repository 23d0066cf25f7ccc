"""A worker with an endpoint sends its tasks' spans there, and no texts of errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4

import pytest
from celery import Celery

from tests.support.celery_fixtures import StartWorker
from tests.support.waiting import wait_for

TASK = "worker.tasks.tokens.refresh_providers"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """An OTLP endpoint and what it was sent."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.path.encode() + self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", received
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_of_tasks_arrive(
    collector: tuple[str, list[bytes]], start_worker: StartWorker, celery_application: Celery, tmp_path: Path
) -> None:
    endpoint, received = collector
    worker = start_worker(
        DASHTAM_HOME=str(tmp_path), OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_COMPRESSION="none"
    )
    provider_id = str(uuid4())
    celery_application.send_task(TASK, args=[[provider_id]])
    celery_application.send_task(TASK, args=[[provider_id]], kwargs={"trigger": "planted-word"})
    wait_for(lambda: worker.logs().count("] succeeded") + worker.logs().count("] raised") == 2, what="two tasks to end")
    worker.stop()

    sent = wait_for(lambda: b"".join(received), what="spans")
    assert b"/v1/traces" in sent
    assert f"run/{TASK}".encode() in sent
    assert b"dashtam-worker" in sent
    assert b"planted-word" not in sent
    assert provider_id.encode() not in sent
