"""A real Flower on the session's Redis."""

from __future__ import annotations

import base64
import json
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis as redis_client

from tests.support.fixtures import SESSION_WORKER, redis_database
from tests.support.processes import LocalProcess
from tests.support.waiting import wait_for
from worker.devstack import Urls
from worker.devstack.tether import Tether

PASSWORD = "planted-flower-password"


class FlowerProcess:
    """Where it listens, and asking it."""

    def __init__(self, process: LocalProcess, port: int) -> None:
        self.process = process
        self.port = port

    def url(self, path: str = "/", *, credentials: str = "") -> str:
        return f"http://{credentials and f'{credentials}@'}127.0.0.1:{self.port}{path}"

    def ask(self, path: str, *, password: str | None = PASSWORD, body: Any = None) -> tuple[int, str]:
        """Status and body of the answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url(path), data=data)  # noqa: S310 - our own http address
        if password is not None:
            request.add_header("Authorization", "Basic " + base64.b64encode(f"operator:{password}".encode()).decode())
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


StartFlower = Callable[..., FlowerProcess]


@pytest.fixture(scope="session")
def start_flower(
    servers: Urls, server_environment: dict[str, str], tether: Tether, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartFlower]:
    """Starts Flowers with variables of their own; they end with the session."""
    started: list[LocalProcess] = []

    def start(
        name: str,
        *,
        program: tuple[str, ...] = flower_command(),
        command: tuple[str, ...] = (),
        wait: bool = True,
        **env: str,
    ) -> FlowerProcess:
        home = tmp_path_factory.mktemp(name)
        port = free_port()
        listening = listeners(servers)
        process = LocalProcess(
            name,
            [*program, *command],
            log=home / "log",
            env={
                **server_environment,
                "REDIS_URL": redis_database(servers, SESSION_WORKER),
                "DASHTAM_HOME": str(home),
                "FLOWER_PORT": str(port),
                **env,
            },
            prompt="Visit me at",
            tether=tether,
        )
        started.append(process)
        process.start()
        if wait:
            process.wait_until_ready()
            wait_for(
                lambda: listeners(servers) > listening,
                what="Flower to listen for events: it says too early that it is ready",
            )
        return FlowerProcess(process, port)

    yield start
    for process in started:
        process.stop()


def listeners(servers: Urls) -> int:
    """How many listen for the events of all workers."""
    with redis_client.Redis.from_url(servers.redis_url) as client:
        return sum(int(one["psub"]) > 0 for one in client.client_list(_type="pubsub"))


def flower_command() -> tuple[str, ...]:
    return (sys.executable, "-m", "celery", "-A", "worker.app", "flower")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def flower(start_flower: StartFlower) -> FlowerProcess:
    """Flower as it is configured by default."""
    return start_flower("flower", FLOWER_PASSWORD=PASSWORD)


def seen(flower: FlowerProcess, task_id: str, state: str = "SUCCESS") -> str:
    """What Flower's API says of a task, once it has ended."""

    def ended() -> str:
        status, body = flower.ask(f"/api/task/info/{task_id}")
        return body if status == 200 and json.loads(body)["state"] == state else ""

    return wait_for(ended, what=f"Flower to see {task_id} as {state}")
