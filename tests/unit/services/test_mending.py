"""Commands that put things right can be pasted, and fit the way in which the servers were started."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr

from tests.support.fleet_rows import PROVIDER
from worker.devstack import only_one
from worker.services import mending
from worker.settings import Settings, load

_PORTS = {"postgres": 5433, "redis": 6380}
LOST = replace(PROVIDER, alias="Ada's; rm -rf ~", status="needs_reauth", status_reason="lost_rotation")


def _settings(home: Path, database: str = "127.0.0.1:5433", redis: str = "127.0.0.1:6380") -> Settings:
    return load(
        Settings,
        database_url=f"postgresql+psycopg://dashtam:made-up@{database}/dashtam",
        redis_url=f"redis://{redis}/0",
        DASHTAM_HOME=str(home),
        environment="development",
    )


@pytest.fixture
def devstack(tmp_path: Path) -> Path:
    """A home in which servers were started once."""
    down = {"pid": 0, "identity": "", "password": "made-up", "data": "", "version": ""}
    state = {"durable": True} | {name: {**down, "port": port} for name, port in _PORTS.items()}
    (tmp_path / "devstack.json").write_text(json.dumps(state))
    return tmp_path


def test_names_and_addresses_are_quoted() -> None:
    words = shlex.split(mending.link_again(LOST))

    assert words == ["dashtam", "link", "schwab", "--user", "ada@example.org", "--alias", "Ada's; rm -rf ~"]
    assert shlex.split(mending.link_again(replace(PROVIDER, user=None)))[4] == str(UUID(int=2))
    assert shlex.split(mending.less_often("My bank"))[3] == "My bank"


def test_private_servers_are_started_by_devstack(devstack: Path) -> None:
    settings = _settings(devstack)

    assert mending.start_server("postgres", settings) == "start it: dashtam devstack up"
    assert mending.start_server("redis", settings, silent=True).endswith("dashtam devstack down && dashtam devstack up")
    assert mending.start_workers(settings, ["sync"]).endswith("--queues sync --hostname sync@%h")


def test_the_servers_and_workers_of_a_demonstration_are_started_by_run(devstack: Path) -> None:
    settings = _settings(devstack)
    with only_one(devstack):
        beside = mending.start_server("redis", settings)
        workers_beside = mending.start_workers(settings)

    assert beside == "start it: dashtam devstack up"
    assert workers_beside == "stop the running `dashtam run` with Ctrl-C, then: dashtam run"
    assert mending.start_server("redis", settings) == "start it: dashtam run"
    assert mending.start_beat(settings) == "start everything: dashtam run"


def test_services_of_compose_are_started_by_compose(tmp_path: Path) -> None:
    settings = _settings(tmp_path, database="postgres:5432", redis="redis:6379")

    assert mending.start_server("postgres", settings) == "start it: docker-compose up -d postgres"
    assert mending.start_server("redis", settings, silent=True) == "restart it: docker-compose restart redis"
    assert mending.start_beat(settings) == "start what is down: docker-compose up -d"


def test_all_places_of_several_servers_are_told(tmp_path: Path) -> None:
    settings = _settings(tmp_path).model_copy(
        update={
            "database_url": SecretStr("postgresql+psycopg://dashtam:made-up@/dashtam?host=a,b&port=5432,5433"),
            "redis_url": SecretStr("sentinel://:made-up@h1,h2/0?master=dashtam"),
            "broker_url": SecretStr("amqp://dashtam:made-up@r1//;amqps://dashtam:made-up@r2//"),
        }
    )

    told = [mending.start_server(name, settings) for name in ("postgres", "redis", "rabbitmq")]

    assert told == [
        "start Postgres at a:5432, b:5433, or correct DATABASE_URL; then: dashtam doctor",
        "see whom they name: redis-cli -h h1 -p 26379 SENTINEL MASTER dashtam",
        "start RabbitMQ at r1:5672, r2:5671, or correct BROKER_URL; then: dashtam doctor",
    ]


def test_of_servers_elsewhere_the_place_is_told_and_never_a_password(tmp_path: Path) -> None:
    told = mending.start_server("postgres", _settings(tmp_path, database="db.example.org:5432"))

    assert told == "start Postgres at db.example.org:5432, or correct DATABASE_URL; then: dashtam doctor"


def test_old_tables_are_migrated(tmp_path: Path) -> None:
    assert mending.start_server("schema", _settings(tmp_path)) == "run: dashtam migrate"
    assert mending.start_server("roles", _settings(tmp_path)).endswith("run: dashtam database roles")
