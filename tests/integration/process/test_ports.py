"""A port that cannot be listened on is refused with what to change."""

from __future__ import annotations

import socket

import pytest

from worker.errors import ConfigurationError
from worker.process.ports import require_free


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
def test_free_port_is_left_free(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    for _ in range(2):
        require_free("WEB_PORT", address, port)


def test_taken_port_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError) as refused:
            require_free("WEB_PORT", "127.0.0.1", port)

    assert str(refused.value) == (
        f"WEB_PORT: nothing can listen on 127.0.0.1, port {port} (Address already in use); "
        "stop the program that uses it, or set another WEB_PORT"
    )


def test_address_of_another_host_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"^WEB_PORT: .* \(no address of this host\); set WEB_ADDRESS to one"):
        require_free("WEB_PORT", "192.0.2.1", 0)
