"""The servers of the fault tests with each broker: Redis, Redis behind a Sentinel, RabbitMQ.

`BROKER=redis|sentinel|rabbitmq` says which one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from redis import Redis

from tests.support.brokers import BROKERS, RabbitServer, SentinelServers
from tests.support.faults_servers import Servers
from tests.support.proxy import Proxy

BROKER = os.environ.get("BROKER") or "redis"
assert BROKER in BROKERS, f"BROKER is one of {', '.join(BROKERS)}, not {BROKER!r}"

LOSSES = {
    "redis": ("killed", "restarted empty", "emptied", "full", "cut off"),
    "sentinel": ("failed over", "emptied"),
    "rabbitmq": ("killed", "restarted empty", "emptied", "cut off"),
}[BROKER]


class ServersWithRabbit(Servers):
    """Queues in a RabbitMQ behind a proxy of its own; quotas and journal in Redis."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.rabbit = RabbitServer(home.with_name(f"{home.name}-rabbitmq"))
        self._network = Proxy(lambda: self.rabbit.port)

    @contextmanager
    def session(self) -> Iterator[None]:
        with super().session():
            self.rabbit.start()
            self._network.start()
            try:
                yield
            finally:
                self._network.stop()
                self.rabbit.kill()

    def start(self) -> None:
        super().start()
        self.rabbit.start()

    def addresses(self) -> dict[str, str]:
        return super().addresses() | {"BROKER_URL": self.rabbit.url_at(self._network.port)}

    @property
    def losses(self) -> dict[str, Callable[[], AbstractContextManager[None]]]:
        return {
            "killed": self.rabbit.down,
            "restarted empty": self._restarted_empty,
            "emptied": self._emptied,
            "cut off": self._network.refusing,
        }

    @property
    def broker_network(self) -> Proxy:
        return self._network

    def broker_stopped(self) -> AbstractContextManager[None]:
        return self.rabbit.stopped()

    def queued(self) -> int:
        return sum(self.rabbit.asked().lengths().waiting.values())

    def forget_messages(self) -> None:
        super().forget_messages()
        self.rabbit.forget()

    @contextmanager
    def _restarted_empty(self) -> Iterator[None]:
        self.rabbit.forget(remove=True)
        with self.rabbit.down():
            yield

    @contextmanager
    def _emptied(self) -> Iterator[None]:
        """All queues are removed at the beginning of the block, and emptied at its end."""
        self.rabbit.forget(remove=True)
        try:
            yield
        finally:
            self.rabbit.forget()


class ServersWithSentinel(Servers):
    """A Redis, its replica and a Sentinel have everything that is not in Postgres."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._sentinels = SentinelServers(home.with_name(f"{home.name}-sentinel"))

    @contextmanager
    def session(self) -> Iterator[None]:
        with super().session():
            self._sentinels.start()
            try:
                yield
            finally:
                self._sentinels.stop()

    def start(self) -> None:
        super().start()
        self._sentinels.start()

    @property
    def redis(self) -> Redis:
        return self._sentinels.primary()

    def addresses(self) -> dict[str, str]:
        return super().addresses() | {"REDIS_URL": self._sentinels.url}

    @property
    def losses(self) -> dict[str, Callable[[], AbstractContextManager[None]]]:
        return {"failed over": self._sentinels.primary_down, "emptied": self.redis_emptied}

    def broker_stopped(self) -> AbstractContextManager[None]:
        return self._sentinels.primary_stopped()


def servers_for(home: Path) -> Servers:
    """The servers with the broker that BROKER names."""
    return {"redis": Servers, "sentinel": ServersWithSentinel, "rabbitmq": ServersWithRabbit}[BROKER](home)
