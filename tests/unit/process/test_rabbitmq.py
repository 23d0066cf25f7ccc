"""Errors of a RabbitMQ are told in one line, without its password; its queues keep their type."""

from __future__ import annotations

import socket
from typing import Any
from unittest.mock import MagicMock

import pytest
from amqp.exceptions import AccessRefused, NotAllowed, NotFound
from kombu.exceptions import OperationalError
from kombu.transport import pyamqp

from worker.errors import ConfigurationError, DashtamError, Unavailable
from worker.process.rabbitmq import Channel, RabbitMQ, Transport

URL = "amqp://dashtam:hush@rabbit.example//;amqps://dashtam:hush@other.example:5673//"
PLACES = "rabbit.example:5672, other.example:5673"


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (ConnectionRefusedError("no"), Unavailable, f"RabbitMQ does not run at {PLACES}"),
        (socket.gaierror("no such name"), Unavailable, f"RabbitMQ at {PLACES}: gaierror"),
        (TimeoutError("slow"), Unavailable, f"RabbitMQ at {PLACES} did not answer within 3 s"),
        (AccessRefused("hush?"), ConfigurationError, f"BROKER_URL: RabbitMQ at {PLACES} refuses the user or password"),
        (NotAllowed("vhost"), ConfigurationError, f"BROKER_URL: RabbitMQ at {PLACES} refuses the virtual host"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_error_of_rabbitmq_is_told_with_its_place(
    error: Exception, kind: type[DashtamError], says: str, wrapped: bool
) -> None:
    asked = RabbitMQ(URL, queue_type="quorum", seconds=3)

    def fail() -> None:
        with asked.telling():
            if wrapped:
                raise OperationalError("wrapped") from error
            raise error

    with pytest.raises(kind) as told:
        fail()

    assert str(told.value).startswith(says)
    assert str(told.value).endswith("pending work is kept")
    assert "dashtam:hush" not in str(told.value)


class FakeConnection:
    """Has no queues, or some; its channels say so."""

    def __init__(self, queue_type: str, *, there: bool) -> None:
        self.client = MagicMock(transport_options={"queue_type": queue_type})
        self._there = there

    def channel(self) -> Any:
        found = MagicMock()
        found.queue_declare.side_effect = None if self._there else NotFound("none")
        return found


@pytest.mark.parametrize(
    ("queue", "queue_type", "there", "declared"),
    [
        ("refresh", "quorum", False, [{"x-queue-type": "quorum"}]),
        ("refresh", "classic", False, [None]),
        ("refresh", "quorum", True, []),
        ("celery.pidbox", "quorum", False, [None]),
    ],
)
def test_only_queues_that_are_missing_are_declared(
    monkeypatch: pytest.MonkeyPatch, queue: str, queue_type: str, there: bool, declared: list[dict[str, str] | None]
) -> None:
    seen: list[dict[str, str] | None] = []
    monkeypatch.setattr(pyamqp.Channel, "queue_declare", lambda *_, arguments=None, **__: seen.append(arguments))
    channel = Channel.__new__(Channel)
    channel.connection = FakeConnection(queue_type, there=there)

    channel.queue_declare(queue)

    assert seen == declared


def test_prefetch_counts_are_never_for_a_whole_channel() -> None:
    transport = Transport(MagicMock())

    assert transport.qos_semantics_matches_spec(MagicMock(server_properties={"product": "RabbitMQ", "version": "3.12"}))
