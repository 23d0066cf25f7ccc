"""A Redis that says nothing is not asked again and again."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator

import pytest
from redis.exceptions import RedisError

from worker.devstack import Urls
from worker.process.redis_client import connect


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def connections(server: socket.socket) -> int:
    count = 0
    while True:
        try:
            server.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_connection_is_not_asked_for_notifications_that_its_server_does_not_know(
    servers: Urls, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "redis")
    client = connect(servers.redis_url, seconds=5)

    client.ping()

    client.close()
    assert [line for line in caplog.messages if "maintenance" in line] == []


def test_silent_redis_is_asked_once(silent_server: socket.socket) -> None:
    client = connect(f"redis://127.0.0.1:{silent_server.getsockname()[1]}/0", seconds=0.05)

    with pytest.raises(RedisError):
        client.get("anything")

    assert connections(silent_server) == 1
    client.close()
