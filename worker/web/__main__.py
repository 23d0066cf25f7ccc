"""`python -m worker.web`: serves the HTTP API on WEB_ADDRESS:WEB_PORT."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Protocol

import uvicorn

from worker.errors import ConfigurationError
from worker.process.logger import Logger
from worker.process.ports import require_free
from worker.runtime import Runtime, close_runtime, get_runtime, tune_interpreter
from worker.settings import get_settings
from worker.tasks import send as broker
from worker.telemetry import metric_files
from worker.telemetry.log import configure_logging
from worker.web.application import create_app

log = Logger(__name__)

_KEEP_ALIVE_SECONDS = 15
_END_SECONDS = 10
_HEADER_BYTES = 32 * 1024
_AT_ONCE = 1000


def main() -> None:
    """Runs until SIGTERM or SIGINT. Requests that have already begun are answered first."""
    try:
        settings = get_settings()
        configure_logging(settings)
        metric_files.share_with_exporter(settings.home)
        require_free("WEB_PORT", settings.web_address, settings.web_port)
        runtime = get_runtime()
        runtime.integrations  # noqa: B018 - reports a missing credential now, not at the first link
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(ConfigurationError.exit_code)
    # uvicorn sends itself the signal again after it has ended; it must not end this process before the rest is closed.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    app = create_app(runtime, send=broker.send, transport=broker)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.web_address,
            port=settings.web_port,
            log_config=None,
            access_log=False,  # it would contain the query, which may have a code; `Shield` writes its own log
            server_header=False,
            proxy_headers=bool(settings.web_proxies),
            forwarded_allow_ips=settings.web_proxies or None,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_END_SECONDS,
            h11_max_incomplete_event_size=_HEADER_BYTES,
            limit_concurrency=_AT_ONCE,
            ws="none",
            lifespan="on",
        )
    )
    tune_interpreter()  # otherwise one request in a hundred takes 0.1 s longer
    threading.Thread(target=leave_when_wedged, args=(server, runtime), daemon=True).start()
    server.run()
    if runtime.is_wedged:  # the interpreter would wait for a thread that never returns
        sys.stderr.flush()
        os._exit(1)
    close_runtime()


class Stoppable(Protocol):
    """The part of uvicorn's server that is needed to end it."""

    should_exit: bool


def leave_when_wedged(server: Stoppable, runtime: Runtime, *, every_s: float = 5.0) -> None:
    """Ends the server when database threads are stuck; its supervisor then starts a new process."""
    while not runtime.is_wedged:
        time.sleep(every_s)
    log.critical("process_wedged", next="this process ends, and its supervisor starts another")
    server.should_exit = True


if __name__ == "__main__":
    main()
