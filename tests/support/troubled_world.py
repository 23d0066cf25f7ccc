"""A world of its own, in which servers, workers and beat run, and the troubles that it can have."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import time_machine
from alembic import command
from click.testing import Result
from cryptography.fernet import Fernet
from rich.console import Console
from sqlalchemy import text

from tests.factories import make_linked_provider, make_user
from tests.support import databases
from tests.support.celery_fixtures import reconnect
from tests.support.command_line import command_line, fresh_runtime
from tests.support.demonstration import link_in_a_browser
from tests.support.faults_pace import PACE
from tests.support.faults_processes import Processes
from tests.support.faults_servers import Servers
from tests.support.processes import LocalProcess
from tests.support.providers import REFRESHED_KEY
from tests.support.sandbox import SandboxProcess
from tests.support.waiting import wait_for
from worker.cli.run.demo import Demo
from worker.cli.run.environment import Demonstration
from worker.cli.run.lookout import Lookout
from worker.cli.run.watch import screen
from worker.crud import schema
from worker.runtime import Runtime
from worker.sandbox.control import SandboxControl
from worker.services import health
from worker.services.findings import Finding
from worker.services.refresh import protocol
from worker.services.sync import batch
from worker.settings import get_settings
from worker.tasks import send

LOGINS = 4
ALIAS = "Home of Ada"
# As the fault tests' world, but what is cut off stays so until it is looked at.
_PATIENT = {
    **PACE,
    "DATABASE_CONNECT_SECONDS": "1",
    "BREAKER_FAILURES": "3",
    "BREAKER_PROVIDERS": "4",
    "BREAKER_SECONDS": "3600",
    "BREAKER_MAX_SECONDS": "3600",
}


class TroubledWorld:
    """Everything up and well, until a trouble is made. Make it with `TroubledWorld.session`.

    Attributes:
        environment: what every process has, besides the home's place and the addresses of the servers.
    """

    def __init__(self, home: Path, servers: Servers, sandbox: SandboxProcess) -> None:
        self.home = home
        self.environment: dict[str, str] = {}
        self._servers = servers
        self._sandbox = sandbox
        self._processes: Processes
        self._worker: LocalProcess
        self._beat: LocalProcess
        self._runtime: Runtime

    @classmethod
    @contextmanager
    def session(cls, home: Path) -> Iterator[TroubledWorld]:
        """The world for as long as the block lasts."""
        broker_before = send.sender.conf["broker_url"]  # read from the environment, which is another one below
        with ExitStack() as stack:
            servers = Servers(home)
            stack.enter_context(servers.session())
            databases.migrate(servers.engine.url.render_as_string(hide_password=False))
            sandbox = stack.enter_context(SandboxProcess("--logins", f"{REFRESHED_KEY}={LOGINS}"))
            world = cls(home, servers, sandbox)
            world.environment = {
                **servers.direct_addresses(),
                **_PATIENT,
                **sandbox.variables(),
                "DASHTAM_HOME": str(home),
            }
            stack.enter_context(patch.dict(os.environ, world.environment))
            get_settings.cache_clear()
            stack.callback(get_settings.cache_clear)
            reconnect(send.sender, broker_url=world.environment["REDIS_URL"])
            stack.callback(reconnect, send.sender, broker_url=broker_before)
            world._processes = Processes(world.environment, home)
            stack.callback(world._processes.close)
            world._begin()
            yield world

    def _begin(self) -> None:
        """A worker for all queues, beat, and logins that nothing is due of."""
        celery = (sys.executable, "-m", "celery", "-A", "worker.app")
        queues = ("--queues", "refresh,sync,upkeep", "--hostname", "all@%h", "--concurrency", "1")
        self._worker = self._processes.start_process([*celery, "worker", *queues, "--without-mingle"])
        self._beat = self._processes.start_process([*celery, "beat"])
        runtime = Runtime(get_settings())
        with runtime.transaction() as session, self._sandbox.admin() as admin:
            user = make_user(session, email="ada@example.org")
            later = datetime.now(UTC) + timedelta(hours=2)
            for number, minted in enumerate(admin.mint(*admin.logins(REFRESHED_KEY))):
                make_linked_provider(
                    session,
                    runtime.encryption,
                    user=user,
                    provider_key=REFRESHED_KEY,
                    alias=ALIAS if number == 0 else f"Other {number}",
                    access_token=minted.access_token,
                    refresh_token=minted.refresh_token,
                    refresh_due_at=later,
                    sync_due_at=later,
                )
        runtime.close()
        self.wait_until_well()

    # Looking

    def troubles(self) -> list[Finding]:
        """What is wrong just now; nothing is, when all is well."""
        with fresh_runtime() as runtime:
            return runtime.run(health.troubles(runtime, send))

    def wait_until_well(self) -> None:
        """Raises with what is still wrong."""
        try:
            wait_for(lambda: not self.troubles(), what="a world that is well", seconds=60)
        except AssertionError as error:
            raise AssertionError(f"{error}: {[trouble.sentence for trouble in self.troubles()]}") from None

    def dashtam(self, *arguments: str) -> Result:
        """Runs a command in this process, with connections of its own; what it configures is undone."""
        with fresh_runtime(), command_line() as run:
            return run(*arguments)

    def live_table(self) -> str:
        """The table of `dashtam run`, as it is drawn after one look."""
        password = self.home / "flower.password"
        password.write_text("made-up-word\n")
        demonstration = Demonstration(
            home=self.home,
            sandbox_url="http://127.0.0.1:1",
            sandbox_token="none",
            flower_url="http://127.0.0.1:2",
            flower_user="operator",
            flower_password_file=password,
            web_url="http://127.0.0.1:3",
            api_key_file=self.home / "api.key",
            variables={},
            env_file=self.home / "run.env",
        )
        nobody = cast("Demo", SimpleNamespace(is_linked=False))
        with fresh_runtime() as runtime:
            lookout = Lookout(nobody, lambda: runtime, send)
            lookout.has_come_up = True
            lookout.look(runtime)
        out = io.StringIO()
        Console(file=out, width=300).print(screen(demonstration, lookout.seen, [], width=300))
        return out.getvalue()

    def run_mend(self, mend: str) -> None:
        """Runs the command at the end of what puts a trouble right, as an operator pastes it into a shell."""
        printed = mend.rpartition(": ")[2]
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        if printed.startswith("celery"):
            started = self._processes.start_process(["sh", "-c", f"exec {printed}"], PATH=path)
            if " beat" in printed:
                self._beat = started
            else:
                self._worker = started
        elif printed.startswith("dashtam sync"):
            self._provider_is_back()
            assert self.dashtam(*shlex.split(printed)[1:]).exit_code == 0
        elif printed.startswith("dashtam link"):
            self._link_in_a_browser(printed)
        elif printed == "dashtam keys status":  # the sentence before it says to put the key back
            os.environ["ENCRYPTION_KEYS"] += f",gone:{Fernet.generate_key().decode()}"
            get_settings.cache_clear()
            assert "gone" in self.dashtam("keys", "status").output
        elif "devstack" in printed:
            # It brings servers of its own unless the environment names others.
            without = {name: value for name, value in os.environ.items() if name not in self._servers.addresses()}
            done = subprocess.run(
                ["/bin/sh", "-c", printed], env=without | {"PATH": path}, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{printed}\n{done.stdout}{done.stderr}"
        else:
            result = self.dashtam(*shlex.split(printed)[1:])
            assert result.exit_code == 0, f"{printed}\n{result.output}"

    def _link_in_a_browser(self, printed: str) -> None:
        """As its user does: opens the printed address, consents, and enters the address on which the browser lands."""
        control = SandboxControl(self._sandbox.base_url, self._sandbox.admin_token)
        with self._sandbox.admin() as admin:
            login = admin.logins(REFRESHED_KEY)[0]
        done = link_in_a_browser(printed, dict(os.environ), lambda asked: control.link(login, asked)["callback_url"])
        assert done[0] == 0, f"{printed}\n{done[1]}"

    # Troubles

    @contextmanager
    def redis_dead(self) -> Iterator[None]:
        self._servers.kill_redis()
        yield

    @contextmanager
    def postgres_dead(self) -> Iterator[None]:
        self._servers.kill_postgres()
        yield

    @contextmanager
    def postgres_silent(self) -> Iterator[None]:
        with self._servers.postgres_stopped():
            yield

    @contextmanager
    def workers_gone(self) -> Iterator[None]:
        self._worker.kill()
        yield

    @contextmanager
    def beat_gone(self) -> Iterator[None]:
        self._beat.kill()
        self._execute("UPDATE heartbeats SET at = at - interval '10 minutes'")
        yield

    @contextmanager
    def paused(self) -> Iterator[None]:
        assert self.dashtam("integrations", "pause", REFRESHED_KEY, "--reason", "maintenance").exit_code == 0
        yield
        self.dashtam("integrations", "resume", REFRESHED_KEY)

    @contextmanager
    def breaker(self) -> Iterator[None]:
        with self._sandbox.admin() as admin:
            admin.inject("answer", status=503, body="down", kind="refresh", times=None)
            self._refresh(times=2)
            admin.clear_faults()
        yield
        self.dashtam("integrations", "resume", REFRESHED_KEY)

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Too few logins are asked to open the breaker. The provider is back when its trouble has been looked at."""
        with self._sandbox.admin() as admin:
            admin.inject("answer", status=503, body="down", kind="refresh", times=None)
        self._refresh(times=2, logins=LOGINS - 1)
        yield
        self._provider_is_back()

    def _provider_is_back(self) -> None:
        with self._sandbox.admin() as admin:
            admin.clear_faults()

    @contextmanager
    def quota(self) -> Iterator[None]:
        with patch.dict(os.environ, {"QUOTA_SCALE": "0.0000001"}):
            get_settings.cache_clear()
            with fresh_runtime() as runtime:
                runtime.run(batch.sync_providers(runtime, [self._id(runtime)]))
        get_settings.cache_clear()
        # As if it were a quota of a day: a minute is too short for all who look.
        self._execute("UPDATE providers SET sync_due_at = now() + interval '2 hours'")
        yield
        self._execute("DELETE FROM sync_runs")

    def _execute(self, statement: str, **values: Any) -> None:
        with fresh_runtime() as runtime, runtime.transaction() as session:
            session.execute(text(statement), values)

    def _refresh(self, *, times: int, logins: int = LOGINS) -> None:
        with fresh_runtime() as runtime:
            with runtime.transaction() as session:
                ids = list(session.execute(text("SELECT id FROM providers ORDER BY id")).scalars())[:logins]
            for _ in range(times):
                runtime.run(protocol.refresh_providers(runtime, ids, force=True))

    @contextmanager
    def needs_its_user(self) -> Iterator[None]:
        with self._sandbox.admin() as admin:
            admin.revoke(admin.logins(REFRESHED_KEY)[0])
        with fresh_runtime() as runtime:
            runtime.run(protocol.refresh_providers(runtime, [self._id(runtime)], force=True))
        yield
        self._execute("UPDATE providers SET status = 'active', status_reason = NULL")

    def _id(self, runtime: Runtime) -> Any:
        with runtime.transaction() as session:
            return session.execute(text("SELECT id FROM providers WHERE alias = :alias"), {"alias": ALIAS}).scalar_one()

    @contextmanager
    def key_missing(self) -> Iterator[None]:
        before = os.environ["ENCRYPTION_KEYS"]
        self._execute("UPDATE provider_tokens SET key_id = 'gone'")
        yield
        os.environ["ENCRYPTION_KEYS"] = before
        get_settings.cache_clear()
        with fresh_runtime() as runtime:
            self._execute("UPDATE provider_tokens SET key_id = :key_id", key_id=runtime.encryption.key_id)

    @contextmanager
    def schema_old(self) -> Iterator[None]:
        command.downgrade(schema._config(), "-1")
        yield

    @contextmanager
    def clock_wrong(self) -> Iterator[None]:
        with time_machine.travel(datetime.now(UTC) + timedelta(minutes=5), tick=True):
            yield
