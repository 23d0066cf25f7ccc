"""pytest-celery's nodes over local processes: the plugin's fixtures and assertions without a container engine.

The plugin's own containers come from Docker; here a `CeleryTestContainer` is a process that we start. Its base class's
`__init__` is not called on purpose: it only takes hold of a Docker object.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import celery
import redis
from pytest_celery import CeleryTestBroker, CeleryTestContainer, CeleryTestSetup, CeleryTestWorker

from tests.support.environment import ROOT
from tests.support.processes import LocalProcess
from tests.support.waiting import PATIENCE_S
from worker.devstack.tether import Tether


class LocalContainer(CeleryTestContainer):
    """What pytest-celery asks of a container, answered by a process."""

    def __init__(self, process: LocalProcess) -> None:
        self.process = process
        self._local_id = uuid4().hex

    @property
    def id(self) -> str:
        return self._local_id

    @property
    def name(self) -> str:
        return self.process.name

    @property
    def status(self) -> str:
        return "running" if self.process.running else "exited"

    @property
    def attrs(self) -> dict[str, Any]:
        return {"Config": {"Hostname": "localhost"}}

    def start(self) -> None:
        self.process.start()

    def stop(self, timeout: float = 15) -> None:
        self.process.stop(timeout)

    def kill(self, signal: str | int = "SIGKILL") -> None:
        number = _number(signal)
        if number == 9:
            self.process.kill()
        else:
            self.process.signal(number)
            self.process.wait()

    def restart(self, timeout: float = 15) -> None:
        self.process.restart()

    def ready(self, timeout: float = PATIENCE_S) -> bool:
        self.process.wait_until_ready(timeout)
        return True

    def logs(self) -> str:
        return self.process.logs()

    def reload(self) -> None:
        """Nothing is cached about a process."""

    def remove(self, **_: object) -> None:
        self.process.stop()

    def teardown(self) -> None:
        self.process.stop()


class RedisNode(LocalContainer):
    """The session's Redis; tests share it, so that no teardown stops it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._local_id = uuid4().hex

    @property
    def name(self) -> str:
        return "redis"

    @property
    def status(self) -> str:
        return "running"

    @property
    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self._url, decode_responses=True)

    @property
    def celeryconfig(self) -> dict[str, Any]:
        parts = urlsplit(self._url)
        return {
            "url": self._url,
            "host_url": self._url,
            "hostname": parts.hostname,
            "port": parts.port,
            "vhost": parts.path.strip("/"),
        }

    def ready(self, timeout: float = 30) -> bool:
        with self.client as client:
            return bool(client.ping())

    def logs(self) -> str:
        return ""

    def teardown(self) -> None:
        """Belongs to the session."""


class WorkerNode(LocalContainer):
    """A real worker of `worker.app` that serves the queues that it is given."""

    def __init__(
        self,
        name: str,
        *,
        queues: str,
        log: Path,
        env: Mapping[str, str],
        tether: Tether | None = None,
        processes: int = 1,
        options: tuple[str, ...] = (),
        tree: Path = ROOT,
        forked: bool = False,
    ) -> None:
        self._queues = queues
        argv = [
            *(sys.executable, "-m", "celery", "-A", "worker.app", "worker"),
            *("--queues", queues, "--concurrency", str(processes), "--hostname", f"{name}@tests"),
            *("--loglevel", "INFO", "--without-gossip", "--without-mingle", *options),
        ]
        super().__init__(
            LocalProcess(name, argv, log=log, env=env, prompt=" ready.", tether=tether, tree=tree, forked=forked)
        )

    @staticmethod
    def version() -> str:
        return str(celery.__version__)

    @staticmethod
    def log_level() -> str:
        return "INFO"

    def worker_name(self) -> str:
        return self.process.name

    def teardown(self) -> None:
        """At once: a graceful stop of prefork takes over two seconds even when it is idle."""
        if self.process.running:
            self.process.kill()

    def worker_queue(self) -> str:
        return self._queues.split(",")[0]


class Broker(CeleryTestBroker):  # type: ignore[misc, unused-ignore]
    """The session's Redis as broker."""

    def teardown(self) -> None:
        """Belongs to the session."""


class Worker(CeleryTestWorker):  # type: ignore[misc, unused-ignore]
    """A worker node.

    Args:
        keep: it belongs to the session, so that a test's end does not stop it.
    """

    def __init__(self, container: WorkerNode, app: celery.Celery, *, keep: bool) -> None:
        super().__init__(container, app)
        self._keep = keep

    def hostname(self) -> str:
        """As `celery inspect` names it."""
        return f"{self.worker_name}@tests"

    def teardown(self) -> None:
        if not self._keep:
            self.container.teardown()


class Setup(CeleryTestSetup):  # type: ignore[misc, unused-ignore]
    """The plugin's setup around our own application."""

    @classmethod
    def create_setup_app(cls, celery_setup_config: dict[str, Any], celery_setup_app_name: str) -> celery.Celery:
        from worker.app import app

        app.set_current()
        return app


def _number(value: str | int) -> signal.Signals:
    return signal.Signals[value] if isinstance(value, str) else signal.Signals(value)
