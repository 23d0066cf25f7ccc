"""RabbitMQ and Redis behind a Sentinel for tests: the programs are taken from PATH or from Debian's packages."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import redis
from amqp.exceptions import PreconditionFailed
from kombu.transport import pyamqp
from redis.exceptions import RedisError

from tests.support.waiting import wait_for
from worker.devstack.account import Account
from worker.devstack.binaries import find_redis
from worker.devstack.processes import free_port
from worker.devstack.tether import Tether
from worker.process.rabbitmq import QueueType, RabbitMQ, look_at
from worker.process.redis_names import QUEUES

BROKERS = ("redis", "sentinel", "rabbitmq")
PRIMARY = "dashtam"
PASSWORD = "made-up-for-tests"
_RABBITMQ = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)
_START_S = 120.0


def program(name: str, package: str, *places: str) -> str:
    """A server's program.

    Raises:
        AssertionError: it is not installed; the text says what to do.
    """
    found = next((place for place in places if Path(place).exists()), None) or shutil.which(name)
    assert found, (
        f"{name} was not found; install it (Debian, Ubuntu: apt-get install {package}) and run the tests again"
    )
    return found


class Child:
    """A server program in a process group of its own; it may be killed, stopped and started again.

    Args:
        argv: the command.
        log: the file for its output.
        env: variables beside PATH.
        account: the user that it runs as, if not ours.
    """

    def __init__(
        self, argv: list[str], *, log: Path, env: Mapping[str, str] | None = None, account: Account | None = None
    ) -> None:
        self._account = account
        self._argv = argv
        self._log = log
        self._env = {"PATH": os.environ["PATH"], **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._tether: Tether | None = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        if self.running:
            return
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._argv,
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=self._env,
                start_new_session=True,
                cwd="/",
                **(self._account.popen_arguments() if self._account else {}),
            )

        if self._tether is None:  # ends the server should this process be killed
            self._tether = Tether(self._log.with_suffix(".tether"), grace_s=1)
        self._tether.hold(self._process.pid)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole group."""
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        if self._tether is not None:
            self._tether.release()
            self._tether = None

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class RabbitServer:
    """A RabbitMQ with one node, which listens on 127.0.0.1 only.

    Args:
        home: a directory for its data.
        feature_flags: the features that a new node has; None for all.
    """

    def __init__(self, home: Path, *, feature_flags: str | None = None) -> None:
        self.port = free_port()
        other, names = free_port(), free_port()
        home.mkdir(parents=True, exist_ok=True)
        (home / "plugins").write_text("[].\n")
        (home / "rabbitmq.conf").write_text("loopback_users = none\n")
        values = {
            "NODENAME": f"dashtam{self.port}@localhost",
            "NODE_PORT": str(self.port),
            "NODE_IP_ADDRESS": "127.0.0.1",
            "DIST_PORT": str(other),
            "MNESIA_BASE": str(home / "mnesia"),
            "LOG_BASE": str(home / "log"),
            "PID_FILE": str(home / "pid"),
            "ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "CONFIG_FILE": str(home / "rabbitmq"),
            "CONF_ENV_FILE": "/dev/null",
            # Nobody else talks to this node.
            "SERVER_ADDITIONAL_ERL_ARGS": f"-start_epmd false -erl_epmd_port {other} +S 2:2 +sbwt none +sbwtdcpu none",
        }
        if feature_flags is not None:
            values["FEATURE_FLAGS"] = feature_flags
        # Erlang starts an `epmd`, which outlives the node, unless one is there already: this node has its own.
        names_only = {"ERL_EPMD_PORT": str(names), "ERL_EPMD_ADDRESS": "127.0.0.1"}
        self._epmd = Child([program("epmd", "erlang-base")], log=home / "epmd.log", env=names_only)
        env = {"HOME": str(home), **names_only, **{f"RABBITMQ_{key}": value for key, value in values.items()}}
        self._child = Child([program("rabbitmq-server", "rabbitmq-server", *_RABBITMQ)], log=home / "out.log", env=env)

    @property
    def url(self) -> str:
        return self.url_at(self.port)

    @staticmethod
    def url_at(port: int) -> str:
        return f"amqp://guest:guest@127.0.0.1:{port}//"

    def asked(self, queue_type: QueueType = "quorum") -> RabbitMQ:
        return RabbitMQ(self.url, queue_type=queue_type, seconds=10)

    def start(self) -> None:
        if not self._child.running:
            self._epmd.start()
            self._child.start()
            wait_for(self._listens, seconds=_START_S, what="RabbitMQ")

    def kill(self) -> None:
        self._child.kill()
        self._epmd.kill()

    @contextmanager
    def down(self) -> Iterator[None]:
        """Killed at the beginning of the block, started at its end."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """SIGSTOP: it neither answers nor refuses."""
        self._child.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._child.signal(signal.SIGCONT)

    def forget(self, *, remove: bool = False) -> None:
        """Empties all queues, or removes them."""
        with self.asked()._connected() as connection:
            for queue in QUEUES:
                channel = connection.connection.channel()
                with suppress(connection.connection.channel_errors):
                    channel.queue_delete(queue) if remove else channel.queue_purge(queue)

    def types(self) -> dict[str, str]:
        """The type of each queue that exists: one declared anew with another type is refused, in words that name it."""
        found = {}
        with self.asked()._connected() as connection:
            for queue in QUEUES:
                if look_at(connection.connection, queue) is None:
                    continue
                try:
                    wrong = {"x-queue-type": "stream"}
                    plain = pyamqp.Channel(connection.connection)
                    plain.open()
                    plain.queue_declare(queue, durable=True, auto_delete=False, arguments=wrong)
                except PreconditionFailed as error:
                    found[queue] = "quorum" if "'quorum'" in str(error) else "classic"
        return found

    def _listens(self) -> bool:
        assert self._child.running, f"RabbitMQ has ended:\n{self._child.log()[-2000:]}"
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            return True
        return False


class SentinelServers:
    """A Redis, a replica of it, and one Sentinel that makes the replica the primary when the other one is away.

    Args:
        home: a directory for their data.
    """

    def __init__(self, home: Path) -> None:
        self._binary = str(find_redis().path)
        self.ports = [free_port(), free_port()]
        self.sentinel_port = free_port()
        self._home = home
        self.servers = [
            self._server(port, replica_of=self.ports[0] if index else None) for index, port in enumerate(self.ports)
        ]
        self.sentinel = self._sentinel()

    @property
    def url(self) -> str:
        return f"sentinel://:{PASSWORD}@127.0.0.1:{self.sentinel_port}/0?master={PRIMARY}"

    def start(self) -> None:
        for server, port in zip(self.servers, self.ports, strict=True):
            server.start()
            wait_for(lambda port=port: self._answers(port), what="Redis")
        self.sentinel.start()
        wait_for(lambda: self.primary_port() is not None, what="the Sentinel")

    def client(self, port: int) -> redis.Redis:
        password = None if port == self.sentinel_port else PASSWORD
        return redis.Redis(port=port, password=password, decode_responses=True, socket_timeout=5)

    def primary_port(self) -> int | None:
        """The port that the Sentinel names; None if it knows none."""
        try:
            found = self.client(self.sentinel_port).sentinel_get_master_addr_by_name(PRIMARY)
        except RedisError:
            return None
        return None if found is None else int(found[1])

    def primary(self) -> redis.Redis:
        """Straight to the primary of this moment."""
        port = self.primary_port()
        assert port is not None, "the Sentinel names no primary"
        return self.client(port)

    @contextmanager
    def primary_down(self) -> Iterator[None]:
        """The primary is killed, and another has its place when the block ends; then the old one comes back."""
        wait_for(self._has_replica, what="a replica that has caught up")
        old = self.primary_port()
        server = self.servers[self.ports.index(old or 0)]
        server.kill()
        try:
            yield
            wait_for(lambda: self.primary_port() not in (old, None), what="another primary")
        finally:
            server.start()

    @contextmanager
    def primary_stopped(self) -> Iterator[None]:
        """SIGSTOP to the primary: it neither answers nor refuses, and another has its place when the block ends."""
        wait_for(self._has_replica, what="a replica that has caught up")
        old = self.primary_port()
        server = self.servers[self.ports.index(old or 0)]
        server.signal(signal.SIGSTOP)
        try:
            yield
            wait_for(lambda: self.primary_port() not in (old, None), what="another primary")
        finally:
            server.signal(signal.SIGCONT)

    def stop(self) -> None:
        for child in (self.sentinel, *self.servers):
            child.kill()

    def _has_replica(self) -> bool:
        with suppress(RedisError):
            return int(self.primary().info("replication")["connected_slaves"]) > 0
        return False

    def _answers(self, port: int) -> bool:
        with suppress(RedisError):
            return bool(self.client(port).ping())
        return False

    def _server(self, port: int, *, replica_of: int | None) -> Child:
        home = self._home / f"redis-{port}"
        home.mkdir(parents=True)
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"dir {home}",
            "appendonly yes",
            'save ""',
            f"requirepass {PASSWORD}",
        ]
        lines += [f"masterauth {PASSWORD}", "repl-diskless-sync-delay 0", "maxmemory-policy noeviction"]
        if replica_of is not None:
            lines.append(f"replicaof 127.0.0.1 {replica_of}")
        config = home / "redis.conf"
        config.write_text("\n".join(lines) + "\n")
        return Child([self._binary, str(config)], log=home / "out.log")

    def _sentinel(self) -> Child:
        home = self._home / "sentinel"
        home.mkdir(parents=True)
        lines = [f"port {self.sentinel_port}", "bind 127.0.0.1", f"dir {home}"]
        lines += [f"sentinel monitor {PRIMARY} 127.0.0.1 {self.ports[0]} 1", f"sentinel auth-pass {PRIMARY} {PASSWORD}"]
        lines += [f"sentinel down-after-milliseconds {PRIMARY} 1000", f"sentinel failover-timeout {PRIMARY} 3000"]
        config = home / "sentinel.conf"
        config.write_text("\n".join(lines) + "\n")
        return Child([self._binary, str(config), "--sentinel"], log=home / "out.log")
