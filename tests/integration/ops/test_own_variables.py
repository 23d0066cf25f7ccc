"""Every service of the compose file, started with exactly the variables and secrets that the file gives to it."""

from __future__ import annotations

import json
import re
import socket
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.orm import Session

from tests.integration.ops.conftest import free_port
from tests.integration.ops.scraping import Scraped
from tests.support.databases import Databases
from tests.support.environment import ROOT, new_keys
from tests.support.fixtures import NO_WORKER, redis_database
from tests.support.processes import LocalProcess
from worker.crud.roles import create_roles
from worker.devstack import Urls
from worker.devstack.tether import Tether

pytestmark = pytest.mark.deep

SERVICES: dict[str, dict[str, Any]] = yaml.load((ROOT / "docker-compose.yml").read_text(), Loader=yaml.CSafeLoader)[
    "services"
]
PASSWORD = "only-for-this-test"
READY = {"beat": "beat: Starting", "flower": "Visit me at", "exporter": "exporter_ready"}


@pytest.fixture(scope="module")
def roles(databases: Databases) -> Iterator[dict[str, str]]:
    """Addresses of a database of its own, by role."""
    url, prefix = make_url(databases.clone("own_variables")), f"test_{uuid4().hex[:8]}"
    engine = create_engine(url, poolclass=NullPool)
    with Session(engine) as session, session.begin():
        create_roles(session, passwords=dict.fromkeys(("app", "readonly"), PASSWORD), prefix=prefix)
    shown = {role: url.set(username=f"{prefix}_{role}", password=PASSWORD) for role in ("app", "readonly")}
    yield {role: one.render_as_string(hide_password=False) for role, one in {"owner": url, **shown}.items()}
    names = [f"{prefix}_{role}" for role in ("migrate", "app", "readonly")]
    with engine.begin() as connection:
        for name in names:
            connection.execute(text(f"GRANT {name} TO CURRENT_USER"))
    # Whoever is still connected as a role could not be sent away once the role is gone.
    ending = text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = ANY (:names)")
    with engine.begin() as connection:
        connection.execute(ending, {"names": names})
        for name in names:
            connection.execute(text(f"DROP OWNED BY {name} CASCADE"))
            connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()


Start = Callable[..., LocalProcess]


@pytest.fixture
def start(roles: dict[str, str], servers: Urls, tmp_path: Path, tether: Tether) -> Iterator[Start]:
    """Starts a service as its container would be: nothing in the environment but what the file names."""
    secrets = {
        "redis_url": redis_database(servers, NO_WORKER),
        "database_url": roles["app"],
        "migrate_database_url": roles["owner"],
        "readonly_database_url": roles["readonly"],
        "encryption_keys": new_keys("k1"),
    }
    started: list[LocalProcess] = []

    def begin(name: str, *, command: list[str] | None = None, **here: str) -> LocalProcess:
        service = SERVICES[name]
        variables = {}
        for variable, value in service["environment"].items():
            plain = re.sub(r"\$\{[A-Z_]+:-(.*?)\}", r"\1", str(value))
            secret = plain.removeprefix("/run/secrets/")
            if secret != plain:
                assert secret in service["secrets"]
                path = tmp_path / secret
                path.write_text(secrets.get(secret, f"made-up-{secret}"))
                path.chmod(0o600)
                plain = str(path)
            variables[variable] = plain
        # Of the image: the way to its programs, and its home; and ports of this machine, which are taken.
        variables |= {"PATH": str(Path(sys.executable).parent), "DASHTAM_HOME": str(tmp_path / "home"), **here}
        if "FLOWER_ADDRESS" in variables:
            variables["FLOWER_ADDRESS"] = "127.0.0.1"
        words = [f"{name}={value}" for name, value in variables.items()]
        argv = ["/usr/bin/env", "-i", *words, *(command or service["command"])]
        argv = [re.sub(r"\$\{[A-Z_]+:-(.*?)\}", r"\1", word) for word in argv]
        process = LocalProcess(
            name, argv, log=tmp_path / f"{name}.log", prompt=READY.get(name, " ready."), tether=tether
        )
        started.append(process)
        process.start()
        return process

    yield begin
    for process in started:
        process.stop()


def environment_of(process: LocalProcess) -> dict[str, str]:
    text = Path(f"/proc/{process.pid}/environ").read_text()
    return dict(line.split("=", 1) for line in text.split("\0") if line)


@pytest.mark.parametrize("name", ["beat", "flower", "exporter", "worker-refresh"])
def test_service_starts_with_its_own_variables_and_stops_when_told(start: Start, name: str) -> None:
    process = start(name, FLOWER_PORT=str(free_port()), EXPORTER_PORT=str(free_port()))

    process.wait_until_ready()

    assert ("ENCRYPTION_KEYS_FILE" in environment_of(process)) is (name == "worker-refresh")
    process.signal(15)
    assert process.wait() == 0, process.logs()
    for line in process.logs().splitlines():
        assert json.loads(line)["event"], "LOG_FORMAT=json leaves no line in plain text"


def test_program_that_cannot_start_says_why_in_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        taken = {
            "FLOWER_PORT": start("flower", FLOWER_PORT=port),
            "EXPORTER_PORT": start("exporter", EXPORTER_ADDRESS="127.0.0.1", EXPORTER_PORT=port),
            "WEB_PORT": start("web", WEB_ADDRESS="127.0.0.1", WEB_PORT=port),
        }
        missing = [start(name, REDIS_URL_FILE="") for name in ("beat", "worker-refresh")]

        assert [process.wait() for process in (*taken.values(), *missing)] == [5] * 5

    for variable, process in taken.items():
        (line,) = process.logs().splitlines()
        assert line.startswith(f"error: {variable}: ")
        assert f"port {port} (Address already in use)" in line
    for process in missing:
        assert process.logs().splitlines() == ["error: REDIS_URL: is required"]


def test_migrations_need_the_owner_s_address_alone(start: Start) -> None:
    # Roles belong to the whole server: that they can be made so is tested with a prefix of a test's own.
    process = start("migrate", command=["/bin/sh", "-c", "dashtam migrate && dashtam database roles --help"])

    assert process.wait() == 0, process.logs()


def test_exporter_reads_every_gauge_as_a_role_that_only_looks(start: Start) -> None:
    port = free_port()
    process = start("exporter", EXPORTER_PORT=str(port))
    process.wait_until_ready()

    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        seen = Scraped(answer.read())

    assert (seen("dashtam_up", service="postgres"), seen("dashtam_up", service="redis")) == (1, 1)
    assert seen("dashtam_refresh_due", integration="schwab") == 0


def test_worker_without_what_it_needs_says_which_variable_and_ends(start: Start) -> None:
    process = start("worker-refresh", ENCRYPTION_KEYS_FILE="")

    assert process.wait() == 5
    assert "error: ENCRYPTION_KEYS: is required" in process.logs()
    assert "Traceback" not in process.logs()
