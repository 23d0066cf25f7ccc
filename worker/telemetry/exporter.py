"""`python -m worker.telemetry.exporter`: serves /metrics and /healthz on EXPORTER_ADDRESS:EXPORTER_PORT.

/metrics has two sources: the counts that processes write to files under the home, and `worker.telemetry.gauges`. By
default it listens on loopback. The answer contains no secrets and no label for a single login.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType

import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from worker.crud.database import make_engine, transaction
from worker.errors import ConfigurationError, Unavailable
from worker.process.logger import Logger
from worker.process.ports import require_free
from worker.process.redis_client import connect
from worker.settings import ExporterSettings, load
from worker.settings.celery import rabbitmq
from worker.settings.database import DatabaseLimits
from worker.telemetry import metric_files
from worker.telemetry.gauges import DatabaseGauges, Kept, RabbitGauges, RedisGauges
from worker.telemetry.log import configure_logging

log = Logger(__name__)

_LIMITS = DatabaseLimits(
    database_connect_seconds=2, database_lock_seconds=1, database_statement_seconds=6, database_step_seconds=8
)
"""Shorter than Prometheus' own limit of ten seconds, so that an answer arrives also when a server is unreachable."""


class Exporter:
    """Collects all sources into one answer.

    Args:
        settings: have the addresses of Postgres, Redis and RabbitMQ, and the place of the files.
    """

    def __init__(self, settings: ExporterSettings) -> None:
        self._files = metric_files.directory(settings.home)
        url = settings.readonly_database_url.get_secret_value()
        limits = _LIMITS.model_copy(update={"database_pooler": settings.database_pooler})
        self._engine = make_engine(url, connections=1, limits=limits)
        self._redis = connect(settings.redis_url.get_secret_value(), seconds=2, retries=0)
        self._gauges = CollectorRegistry()
        self._has_gauges = settings.exporter_gauges
        if self._has_gauges:
            self._register_gauges(settings)
        self._counted = CollectorRegistry()
        self._counted.register(MultiProcessCollector(None, path=str(self._files)))  # type: ignore[no-untyped-call]

    def _register_gauges(self, settings: ExporterSettings) -> None:
        self._gauges.register(Kept("postgres", DatabaseGauges(self._engine, settings.enabled_integrations)))
        broker = rabbitmq(settings, seconds=2)
        self._gauges.register(Kept("redis", RedisGauges(self._redis, is_broker=broker is None)))
        if broker is not None:
            self._gauges.register(Kept("rabbitmq", RabbitGauges(broker)))

    def answer(self) -> bytes:
        """The complete answer of /metrics, in Prometheus' text format."""
        with metric_files.held(self._files):
            counted = generate_latest(self._counted)
        return counted + generate_latest(self._gauges)

    def connect(self) -> None:
        """Opens the connections, so that the first scrape does not have to wait for this."""
        if not self._has_gauges:
            return
        with suppress(Unavailable), transaction(self._engine) as session:
            session.connection()
        with suppress(redis.RedisError):
            self._redis.ping()

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()
        self._redis.close()


def serve(exporter: Exporter, address: str, port: int) -> ThreadingHTTPServer:
    """A server that listens but does not serve yet; with port 0, it uses a free port."""

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            """Answers /metrics and /healthz."""
            if self.path.partition("?")[0] == "/healthz":
                self._send(200, b"ok\n")
            elif self.path.partition("?")[0] == "/metrics":
                self._send(200, exporter.answer())
            else:
                self._send(404, b"there are /metrics and /healthz\n")

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Logs nothing: requests to the exporter are not logged."""

    server = ThreadingHTTPServer((address, port), Handler)
    server.daemon_threads = True
    return server


def main() -> None:
    """Runs until SIGTERM or SIGINT."""
    try:
        settings = load(ExporterSettings)
        configure_logging(settings)
        require_free("EXPORTER_PORT", settings.exporter_address, settings.exporter_port)
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    exporter = Exporter(settings)
    exporter.connect()
    server = serve(exporter, settings.exporter_address, settings.exporter_port)

    def stop(_number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info("exporter_ready", address=settings.exporter_address, port=server.server_port)
    with suppress(KeyboardInterrupt):
        server.serve_forever()
    server.server_close()
    exporter.close()


if __name__ == "__main__":
    main()
