"""The world of the fault tests on three hosts: data, and two with a worker and a beat each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import make_url

from tests.support import databases
from tests.support.certificates import self_signed
from tests.support.faults_pace import PACE
from tests.support.faults_servers import Servers
from tests.support.faults_world import World
from tests.support.hosts import DATA, PROVIDER, Host, make_bridges
from tests.support.hosts_ends import End, Ends
from tests.support.processes import LocalProcess
from tests.support.sandbox import SandboxProcess
from tests.support.worker_nodes import WorkerNode

_POSTGRES, _REDIS = 5432, 6379
NAMES = ("one", "two")


class DataHost(Servers):
    """Postgres and Redis, which other hosts reach by TLS alone."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self._authority = home.with_name("authority")
        self._authority.mkdir()

    @contextmanager
    def session(self) -> Iterator[None]:
        context, self.certificate = self_signed(self._authority, DATA)
        with super().session():
            ends = Ends()
            postgres = End(lambda: self._port("postgres"), context=context, is_postgres=True)
            ends.listen(postgres, DATA, _POSTGRES)
            ends.listen(End(lambda: self._port("redis"), context=context), DATA, _REDIS)
            try:
                yield
            finally:
                ends.stop()

    def addresses(self) -> dict[str, str]:
        """As hosts in production write them."""
        direct = self.direct_addresses()
        postgres, redis = make_url(direct["DATABASE_URL"]), make_url(direct["REDIS_URL"])
        trust = f"sslmode=verify-full&sslrootcert={self.certificate}"
        return {
            "DATABASE_URL": f"postgresql://{postgres.username}:{postgres.password}@{DATA}/{postgres.database}?{trust}",
            "REDIS_URL": f"rediss://:{redis.password}@{DATA}:{_REDIS}/0?ssl_ca_certs={self.certificate}",
        }


class HostsWorld(World):
    """Make it with `HostsWorld.on_hosts`.

    Attributes:
        hosts: by name.
        beats: of each host.
    """

    hosts: dict[str, Host]
    beats: dict[str, LocalProcess]
    _changed: dict[str, set[str]]

    @classmethod
    @contextmanager
    def on_hosts(cls, home: Path) -> Iterator[HostsWorld]:
        """Everything up and linked to nothing, until the block ends."""
        with ExitStack() as stack:
            make_bridges()
            servers = DataHost(home / "servers")
            stack.enter_context(servers.session())
            databases.migrate(servers.engine.url.render_as_string(hide_password=False))
            process = stack.enter_context(SandboxProcess("--logins", "0"))
            ends = Ends()
            stack.callback(ends.stop)
            ends.listen(End(lambda: process.port), PROVIDER, process.port)
            environment = {
                **servers.addresses(),
                **PACE,
                **process.variables(),
                "DASHTAM_ENV": "production",
                "DASHTAM_HOME": str(home / "home-data"),
            }
            world = cls(servers, stack.enter_context(process.admin()), environment, home)
            stack.callback(world.close)
            world.hosts, world.beats, world._changed = {}, {}, {}
            for number, name in enumerate(NAMES, start=11):
                world.hosts[name] = host = Host(name, number, home, world._tether)
                stack.callback(host.end)
                argv = ["python", "-m", "tests.support.hosts_ends", PROVIDER, str(process.port)]
                passes_on = host.process(f"provider-{name}", argv, env={}, prompt="listening")
                passes_on.start()
                passes_on.wait_until_ready()
            yield world

    def workers_of_the_session(self, *, spare: bool = True) -> None:
        """A worker and a beat on each host, whatever was left of them."""
        super().workers_of_the_session(spare=spare)
        self.beats.setdefault("one", self.beat)
        if "two" not in self.beats:
            self.beats["two"] = self._beat("beat-two", {}, ())
        if not self.beats["two"].running:
            self.beats["two"].start()

    def close(self) -> None:
        for beat in self.beats.values():
            if beat.running:
                beat.kill()
        super().close()

    def _alive(self, name: str) -> Path:
        return self._log / f"{name}.alive"

    def is_alive(self, name: str) -> bool:
        """Whether the loop of a worker, or of `beat` or `beat-two`, has come round since `forget_signs_of_life`."""
        return self._alive(name).stat().st_mtime > 0

    def forget_signs_of_life(self) -> None:
        for file in self._log.glob("*.alive"):
            os.utime(file, (0, 0))

    def worker_on(self, name: str) -> WorkerNode:
        """The worker of that host."""
        return self.workers[NAMES.index(name)]

    def restart(self, name: str, **env: str) -> None:
        """Worker and beat of a host, started anew with these variables, which they keep until `all_is_well`."""
        for process in (self.worker_on(name).process, self.beats[name]):
            process.kill()
            process._env |= env
            process.start()
        self._changed[name] = {*self._changed.get(name, ()), *env}
        self.worker_on(name).ready()

    def all_is_well(self) -> None:
        """Every link is there, and no process stands still or has variables that a test gave it."""
        for name, host in self.hosts.items():
            host.come_back()
            variables = self._changed.pop(name, set())
            for process in (self.worker_on(name).process, self.beats[name]) if variables else ():
                process.kill()
                process._env = {key: value for key, value in process._env.items() if key not in variables}

    def _worker(self, name: str, env: dict[str, str], tree: Path | None = None) -> WorkerNode:
        node = super()._worker(name, env | {"ALIVE_FILE": str(self._alive(name))})
        if name in self.hosts:
            self.hosts[name].takes(node.process)
        return node

    def _beat(self, name: str, env: dict[str, str], argv: tuple[str, ...]) -> LocalProcess:
        beat = super()._beat(name, env | {"ALIVE_FILE": str(self._alive(name))}, argv)
        self.hosts["two" if name == "beat-two" else "one"].takes(beat)
        return beat
