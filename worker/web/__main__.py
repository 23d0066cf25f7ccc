"""`python -m worker.web`: serves the HTTP API on WEB_ADDRESS:WEB_PORT."""

from __future__ import annotations

import signal
import sys

import uvicorn

from worker.errors import ConfigurationError
from worker.runtime import close_runtime, get_runtime
from worker.settings import get_settings
from worker.tasks import send as broker
from worker.telemetry.log import configure_logging
from worker.web.application import create_app

_KEEP_ALIVE_SECONDS = 15
_END_SECONDS = 10
_HEADER_BYTES = 32 * 1024
_AT_ONCE = 1000


def main() -> None:
    """Runs until SIGTERM or SIGINT; requests under way are answered first."""
    try:
        settings = get_settings()
        configure_logging(settings)
        runtime = get_runtime()
        runtime.integrations  # noqa: B018 - a missing credential is told now, and not at the first link
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(ConfigurationError.exit_code)
    # uvicorn sends the signal again once it has ended; that must not end this before the rest is closed.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    app = create_app(runtime, send=broker.send, transport=broker)
    uvicorn.run(
        app,
        host=settings.web_address,
        port=settings.web_port,
        log_config=None,
        access_log=False,  # with the query, in which a code may be; `Shield` writes its own
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
    close_runtime()


if __name__ == "__main__":
    main()
