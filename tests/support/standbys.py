"""A standby of the fault tests' Postgres: it receives what the primary writes, and takes its place."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, NullPool, create_engine, make_url, text
from sqlalchemy.exc import OperationalError

from tests.support.brokers import Child
from tests.support.faults_servers import Servers
from tests.support.proxy import Proxy
from tests.support.waiting import wait_for
from worker.devstack.account import server_account, server_environment
from worker.devstack.binaries import find_postgres
from worker.devstack.postgres import SETTINGS
from worker.devstack.processes import free_port

_REPLICATION = "host replication all 127.0.0.1/32 scram-sha-256\n"
_SYNCHRONOUS = "synchronous_standby_names"
_FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "60"}


class Standby:
    """See the module. Make it with `standby`.

    Attributes:
        network: the way from the standby to the primary.
        engine: straight to the standby.
        address: DATABASE_URL of both servers, the primary first.
    """

    def __init__(self, servers: Servers, primary: Path, port: int, network: Proxy) -> None:
        self._servers = servers
        self._primary = primary
        self.network = network
        there = make_url(servers.addresses()["DATABASE_URL"])
        # As users write it. The primary is reached through its proxy.
        self.address = (
            f"postgresql://{there.username}:{there.password}@127.0.0.1:{there.port},127.0.0.1:{port}/{there.database}"
        )
        self.engine: Engine = create_engine(there.set(port=port), poolclass=NullPool)

    def fail_over(self) -> None:
        """Kills the primary, which stays down, and promotes the standby; the story is then told on it."""
        self._servers.kill_postgres()
        # Should the old primary start again for another test, its commits must not wait for a standby.
        settings = self._primary / "postgresql.auto.conf"
        kept = [line for line in settings.read_text().splitlines(keepends=True) if _SYNCHRONOUS not in line]
        settings.write_text("".join(kept))
        with self.engine.connect() as connection:
            assert connection.execute(text("SELECT pg_promote()")).scalar_one()
        self._servers.engine = self.engine


@contextmanager
def standby(servers: Servers, *, synchronous: bool) -> Iterator[Standby]:
    """A standby of the running primary, for as long as the block lasts.

    Args:
        servers: have the primary.
        synchronous: whether each commit waits for it.
    """
    account, data = server_account(), _data_of(servers)
    port, network = free_port(), Proxy(lambda: _port_of(servers))
    bin_ = find_postgres(account, lambda: data.parent, (data / "PG_VERSION").read_text().strip()).bin
    _allow_replication(servers, data, bin_)
    network.start()
    copy = data.with_name("standby")
    copy.mkdir(mode=0o700)
    account.give(copy)
    own = make_url(servers.direct_addresses()["DATABASE_URL"])
    conninfo = (
        f"host=127.0.0.1 port={network.port} user={own.username} password={own.password} application_name=standby"
    )
    done = account.run(
        [str(bin_ / "pg_basebackup"), "-D", str(copy), "-R", "-X", "stream", "-c", "fast", "-d", conninfo]
    )
    assert done.returncode == 0, done.stderr
    options = SETTINGS | _FAST | {"port": str(port)}
    argv = [str(bin_ / "postgres"), "-D", str(copy), *(f"--{name}={value}" for name, value in options.items())]
    server = Child(argv, log=data.with_name("standby.log"), env=server_environment(), account=account)
    made = Standby(servers, data, port, network)
    server.start()
    try:
        wait_for(lambda: _answers(made.engine), what="the standby")
        if synchronous:
            _run(servers.engine, f"ALTER SYSTEM SET {_SYNCHRONOUS} = 'ANY 1 (*)'", "SELECT pg_reload_conf()")
        wanted = "quorum" if synchronous else "async"
        wait_for(lambda: _state(servers.engine) == wanted, what="the replication")
        yield made
    finally:
        server.kill()
        network.stop()
        shutil.rmtree(copy, ignore_errors=True)
        servers.start()
        _run(servers.engine, f"ALTER SYSTEM RESET {_SYNCHRONOUS}", "SELECT pg_reload_conf()")
        _run(servers.engine, f"ALTER ROLE {own.username} NOSUPERUSER")


def _allow_replication(servers: Servers, data: Path, bin_: Path) -> None:
    """Makes the tests' role a superuser that may replicate; only a stopped server lets us do this."""
    role = make_url(servers.direct_addresses()["DATABASE_URL"]).username
    servers.kill_postgres()
    done = subprocess.run(
        [str(bin_ / "postgres"), "--single", "-D", str(data), "-c", "exit_on_error=true", "postgres"],
        input=f"ALTER ROLE {role} SUPERUSER REPLICATION;\n",
        env=server_environment(),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **server_account().popen_arguments(),
    )
    assert done.returncode == 0, done.stderr
    allowed = data / "pg_hba.conf"
    if _REPLICATION not in allowed.read_text():
        allowed.write_text(allowed.read_text() + _REPLICATION)
    servers.start()


def _data_of(servers: Servers) -> Path:
    with servers.engine.connect() as connection:
        return Path(connection.execute(text("SHOW data_directory")).scalar_one())


def _port_of(servers: Servers) -> int:
    return make_url(servers.direct_addresses()["DATABASE_URL"]).port or 0


def _run(engine: Engine, *statements: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def _answers(engine: Engine) -> bool:
    try:
        with engine.connect():
            return True
    except OperationalError:
        return False


def _state(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return connection.execute(text("SELECT sync_state FROM pg_stat_replication")).scalar()
