"""The proxy that fault tests put between the worker and its servers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.proxy import Proxy

pytestmark = pytest.mark.deep


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that answers with what it is sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection:
                while data := connection.recv(100):
                    connection.sendall(data)

        def serve() -> None:
            while True:
                try:
                    connection = server.accept()[0]
                except OSError:  # the test is over
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy(echo_port: int) -> Iterator[Proxy]:
    made = Proxy(lambda: echo_port)
    made.start()
    yield made
    made.stop()


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def is_answered(connection: socket.socket, *, seconds: float = 10) -> bool:
    connection.settimeout(seconds)
    connection.sendall(b"ping")
    try:
        return connection.recv(100) == b"ping"
    except TimeoutError:
        return False


def test_connections_of_a_host_that_vanished_stay_open_and_are_never_answered_again(proxy: Proxy) -> None:
    with connect(proxy) as before:
        assert is_answered(before)
        with proxy.vanished(), connect(proxy) as meanwhile:
            assert not is_answered(before, seconds=0.1)
            assert not is_answered(meanwhile, seconds=0.1)

        with connect(proxy) as afterwards:
            assert is_answered(afterwards)
        assert not is_answered(before, seconds=0.1)


def test_what_is_sent_while_connections_stall_is_answered_afterwards(proxy: Proxy) -> None:
    with connect(proxy) as connection:
        with proxy.stalled():
            assert not is_answered(connection, seconds=0.1)

        connection.settimeout(10)
        assert connection.recv(100) == b"ping"
