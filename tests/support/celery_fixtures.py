"""pytest-celery's fixtures, answered by local processes, and the session's workers.

`celery_setup` has the session's Redis as broker, no result backend because the application keeps no results, and one
session worker that serves all queues.
`start_worker` starts workers for one test alone, which may be killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import redis as redis_client
from celery import Celery
from kombu import pools
from pytest_celery import CeleryTestSetup
from sqlalchemy import Engine

from tests.support.fixtures import SESSION_WORKER, redis_database
from tests.support.sandbox import SandboxAdmin
from tests.support.worker_nodes import Broker, RedisNode, Setup, Worker, WorkerNode
from worker.devstack import Urls
from worker.devstack.tether import Tether
from worker.settings import Settings

QUEUES = "refresh,sync,upkeep"
PROBES = ("--include", "tests.support.probe_tasks")
_NODES = pytest.StashKey[list[WorkerNode]]()


@pytest.fixture(scope="session")
def process_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where processes under test write."""
    return tmp_path_factory.mktemp("processes")


@pytest.fixture(scope="session")
def tether(process_logs: Path) -> Iterator[Tether]:
    """Ends our processes should this session be killed."""
    tether = Tether(process_logs / "tether.log", grace_s=1)
    yield tether
    tether.release()


@pytest.fixture
def celery_application(settings: Settings) -> Iterator[Celery]:
    """Our application in this process, and the one that commands send with, both sending to the session's Redis."""
    from worker.app import app
    from worker.tasks.send import sender

    url = settings.redis_url.get_secret_value()
    before = {name: app.conf[name] for name in ("broker_url", "task_always_eager")}
    reconnect(app, broker_url=url, task_always_eager=False)
    reconnect(sender, broker_url=url)
    yield app
    reconnect(sender, broker_url=before["broker_url"])
    reconnect(app, **before)


def reconnect(app: Celery, **config: Any) -> None:
    """Changes the configuration and forgets every connection made under the old one."""
    app.conf.update(config)
    pools.reset()
    app._pool = app.amqp._producer_pool = None


@pytest.fixture
def celery_broker(redis: redis_client.Redis, redis_url: str) -> Broker:
    return Broker(RedisNode(redis_url))


@pytest.fixture
def celery_backend_cluster() -> None:
    """The plugin's way to say that there is none."""


@pytest.fixture
def celery_setup_cls() -> type[CeleryTestSetup]:
    return Setup


@pytest.fixture
def celery_setup_app(celery_application: Celery) -> Celery:
    return celery_application


@pytest.fixture(scope="session")
def session_worker(
    servers: Urls, server_environment: dict[str, str], process_logs: Path, tether: Tether
) -> Iterator[WorkerNode]:
    """One worker for all queues, shared by the tests that leave it alive."""
    node = WorkerNode(
        "shared",
        queues=QUEUES,
        log=process_logs / "worker.log",
        env=server_environment | {"REDIS_URL": redis_database(servers, SESSION_WORKER)},
        tether=tether,
        processes=2,
        options=PROBES,
        forked=True,
    )
    node.start()
    node.ready()
    yield node
    node.teardown()


@pytest.fixture
def celery_worker(
    session_worker: WorkerNode,
    celery_setup_app: Celery,
    engine: Engine,
    sandbox: SandboxAdmin,
    request: pytest.FixtureRequest,
) -> Worker:
    """The session's worker, started anew when a test has ended it."""
    if not session_worker.process.running:
        session_worker.restart()
    request.node.stash.setdefault(_NODES, []).append(session_worker)
    return Worker(session_worker, celery_setup_app, keep=True)


StartWorker = Callable[..., WorkerNode]
SendProbe = Callable[..., str]


@pytest.fixture
def send_probe(celery_application: Celery) -> SendProbe:
    """Sends a task of `tests.support.probe_tasks`; gives the key under which it reports, which is its id too."""

    def send(**kwargs: bool) -> str:
        key = f"probe-{uuid4().hex[:8]}"
        celery_application.send_task("worker.tasks.upkeep.probe", (key,), kwargs, task_id=key)
        return key

    return send


@pytest.fixture
def start_worker(
    process_environment: dict[str, str],
    engine: Engine,
    redis: redis_client.Redis,
    tmp_path: Path,
    tether: Tether,
    request: pytest.FixtureRequest,
) -> Iterator[StartWorker]:
    """Starts workers for this test alone: `start_worker("refresh", LEASE_SECONDS="2")`; stopped after it."""
    nodes = request.node.stash.setdefault(_NODES, [])
    own: list[WorkerNode] = []

    def start(queues: str = QUEUES, *, processes: int = 1, wait: bool = True, **env: str) -> WorkerNode:
        name = f"own{len(own)}"
        node = WorkerNode(
            name,
            queues=queues,
            log=tmp_path / f"{name}.log",
            env={**process_environment, **env},
            tether=tether,
            processes=processes,
            options=PROBES,
            forked=True,
        )
        own.append(node)
        nodes.append(node)
        node.start()
        if wait:
            node.ready()
        return node

    yield start
    for node in own:
        node.teardown()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Adds the ends of the workers' logs to the report of a failed test."""
    report = yield
    if report.failed:
        for node in item.stash.get(_NODES, []):
            report.sections.append((f"log of worker {node.name}", node.logs()[-6000:]))
    return report
