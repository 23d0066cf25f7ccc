"""The HTTP API on a real socket, served by a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from tests.support.waiting import wait_for


@contextmanager
def listening(app: FastAPI, *, certificate: Path | None = None, key: Path | None = None) -> Iterator[str]:
    """Serves until the block ends. Gives the origin: `http://127.0.0.1:…`; with a certificate `https://localhost:…`."""
    tls = {"ssl_certfile": certificate, "ssl_keyfile": key}
    options: Any = {"port": 0, "log_config": None, "lifespan": "on", "timeout_graceful_shutdown": 1, **tls}
    server = uvicorn.Server(uvicorn.Config(app, **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive(), what="the server to listen")
        assert server.started, "the server did not start"
        origin = "http://127.0.0.1" if certificate is None else "https://localhost"
        yield f"{origin}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
