"""RabbitMQ as the broker: how its queues are declared, and how long they are.

Two things differ from kombu's own transport. A queue that exists is used as it is, whatever its type: declared with
other arguments, RabbitMQ would refuse it (406), and the worker would end. And prefetch counts are for each consumer,
because quorum queues refuse a count for a whole channel.
"""

from __future__ import annotations

import ssl as tls
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from amqp.exceptions import AccessRefused, AMQPError, NotAllowed, NotFound
from kombu.connection import Connection as BrokerConnection
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, pyamqp

from worker.errors import ConfigurationError, Unavailable
from worker.process.redis_names import QUEUES, Lengths

TLS = {"cert_reqs": tls.CERT_REQUIRED}
"""Options of encrypted connections, with py-amqp's names."""

QueueType = Literal["quorum", "classic"]
T = TypeVar("T")

_CONFIRM_SECONDS = 30.0
_QUORUM_SINCE = (3, 8)
_KEPT = "pending work is kept"


class Channel(pyamqp.Channel):  # type: ignore[misc, unused-ignore]
    """A channel that declares one of our queues only if it does not exist."""

    def queue_declare(self, queue: str = "", passive: bool = False, *args: Any, **kwargs: Any) -> Any:
        """Declares a queue; returns its name and its numbers of messages and consumers."""
        if passive or queue not in QUEUES:
            return super().queue_declare(queue, passive, *args, **kwargs)
        if (found := look_at(self.connection, queue)) is not None:
            return found
        options = self.connection.client.transport_options or {}
        if options.get("queue_type", "quorum") == "quorum":
            kwargs["arguments"] = {**(kwargs.get("arguments") or {}), "x-queue-type": "quorum"}
        return super().queue_declare(queue, passive, *args, **kwargs)

    def basic_publish_confirm(self, *args: Any, confirm_timeout: float | None = None, **kwargs: Any) -> Any:
        """Sends a message and waits until RabbitMQ has stored it, or for so many seconds."""
        return super().basic_publish_confirm(*args, confirm_timeout=confirm_timeout or _CONFIRM_SECONDS, **kwargs)


class Connection(pyamqp.Connection):  # type: ignore[misc, unused-ignore]
    """A connection with our channels."""

    Channel = Channel


class Transport(pyamqp.Transport):  # type: ignore[misc, unused-ignore]
    """See the module."""

    Connection = Connection

    def qos_semantics_matches_spec(self, connection: Any) -> bool:
        """Whether a prefetch count need not be for a whole channel, which quorum queues refuse."""
        return True


class SSLTransport(Transport, pyamqp.SSLTransport):  # type: ignore[misc, unused-ignore]
    """The same with TLS."""


def register() -> None:
    """Makes these the transports of amqp:// and amqps:// in this process."""
    TRANSPORT_ALIASES["amqp"] = f"{__name__}:Transport"
    TRANSPORT_ALIASES["amqps"] = f"{__name__}:SSLTransport"


def look_at(connection: Any, queue: str) -> Any | None:
    """Asks for a queue, on a channel of its own: RabbitMQ closes the channel if there is none.

    Returns:
        The queue's name and its numbers of messages and consumers; None if it does not exist.
    """
    channel = connection.channel()
    try:
        found = channel.queue_declare(queue, passive=True)
    except NotFound:
        return None
    channel.close()
    return found


class RabbitMQ:
    """Asks a RabbitMQ about its queues; opens a connection for each question.

    Args:
        url: `amqp://` or `amqps://`; may be several, separated by semicolons.
        queue_type: the type of queues that do not exist yet.
        seconds: how long each answer may take.
    """

    def __init__(self, url: str, *, queue_type: QueueType, seconds: float) -> None:
        register()
        self._url = url
        self._queue_type = queue_type
        self._seconds = seconds

    def lengths(self) -> Lengths:
        """How many messages wait in each queue. A queue that was never used does not exist, and counts as empty.

        Raises:
            Unavailable: it cannot be asked.
        """

        def ask(connection: Any) -> Lengths:
            found = {queue: look_at(connection.connection, queue) for queue in QUEUES}
            return Lengths({queue: 0 if told is None else told.message_count for queue, told in found.items()}, None)

        return self._asked(ask)

    def require_queues(self) -> str:
        """Declares the queues that do not exist; returns the name and version of the server.

        Raises:
            ConfigurationError: it cannot have queues of this type, or refuses the user or the virtual host.
            Unavailable: it cannot be asked.
        """
        return self._asked(self._declare)

    def _declare(self, connection: Any) -> str:
        properties = connection.connection.server_properties
        version = str(properties.get("version", ""))
        name = f"{properties.get('product', 'an AMQP broker')} {version}".strip()
        for queue in QUEUES:
            if look_at(connection.connection, queue) is not None:
                continue
            if self._queue_type == "quorum" and _numbers(version) < _QUORUM_SINCE:
                raise self._no_quorum(name, f"quorum queues came with RabbitMQ {_QUORUM_SINCE[0]}.{_QUORUM_SINCE[1]}")
            try:
                connection.channel().queue_declare(queue, durable=True, auto_delete=False)
            except AMQPError as error:
                if self._queue_type == "quorum" and "x-queue-type" not in _text(error) and "feature" in _text(error):
                    raise self._no_quorum(name, _text(error)) from error
                raise ConfigurationError(
                    f"BROKER_URL: {name} at {self.place} refuses the queue {queue!r} ({_text(error)}); {_KEPT}"
                ) from error
        return name

    def _no_quorum(self, name: str, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"BROKER_QUEUE_TYPE: {name} at {self.place} cannot make quorum queues ({why}); {_KEPT}. Run: rabbitmqctl"
            " enable_feature_flag quorum_queue, or install a newer RabbitMQ, or set BROKER_QUEUE_TYPE=classic"
        )

    def _asked(self, question: Callable[[Any], T]) -> T:
        with self.telling(), self._connected() as connection:
            return question(connection)

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        limits = {"read_timeout": self._seconds, "write_timeout": self._seconds, "queue_type": self._queue_type}
        connection: Any = BrokerConnection(  # type: ignore[no-untyped-call, unused-ignore]
            self._url,
            connect_timeout=self._seconds,
            transport_options=limits,
            **({"ssl": TLS} if self._url.startswith("amqps://") else {}),
        )
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=self._seconds)
            yield connection
        finally:
            with suppress(Exception):  # it is closed in any case
                connection.release()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """A block in which the errors of connections to this RabbitMQ become ours.

        Raises:
            ConfigurationError: it refuses the user, the password or the virtual host.
            Unavailable: it is out of reach.
        """
        try:
            yield
        except (OperationalError, AMQPError, OSError) as error:
            cause = error.__cause__ if isinstance(error, OperationalError) and error.__cause__ else error
            raise self._told(cause) from error

    def _told(self, cause: BaseException) -> ConfigurationError | Unavailable:
        at = f"RabbitMQ at {self.place}"
        if isinstance(cause, AccessRefused | NotAllowed):
            what = "the user or password" if isinstance(cause, AccessRefused) else "the virtual host"
            return ConfigurationError(f"BROKER_URL: {at} refuses {what} ({_text(cause)}); {_KEPT}")
        if isinstance(cause, TimeoutError):
            told = f"{at} did not answer within {self._seconds:g} s; {_KEPT}"
            return Unavailable(told, server="rabbitmq", silent=True)
        if isinstance(cause, ConnectionRefusedError):
            return Unavailable(f"RabbitMQ does not run at {self.place}; {_KEPT}", server="rabbitmq")
        return Unavailable(f"{at}: {type(cause).__name__}; {_KEPT}", server="rabbitmq")

    @property
    def place(self) -> str:
        """Hosts and ports, without user and password."""
        ports = {"amqp": 5672, "amqps": 5671}
        parts = [urlsplit(url) for url in self._url.split(";")]
        return ", ".join(f"{part.hostname or '127.0.0.1'}:{part.port or ports[part.scheme]}" for part in parts)


def _text(error: BaseException) -> str:
    return str(getattr(error, "reply_text", "") or error).partition("\n")[0]


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version; a version without numbers counts as new."""
    found = version.split(".")[:2]
    return tuple(int(number) for number in found) if all(number.isdigit() for number in found) else _QUORUM_SINCE
