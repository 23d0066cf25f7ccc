"""What is said about each broker is true, and a broker that cannot be used is named in one line."""

from __future__ import annotations

import base64
import json
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.brokers import PRIMARY, RabbitServer
from tests.support.faults_brokers import BROKER, ServersWithRabbit, ServersWithSentinel
from tests.support.faults_processes import kill
from tests.support.faults_world import World
from tests.support.processes import LocalProcess
from tests.support.waiting import wait_for
from worker.devstack.processes import free_port
from worker.errors import ConfigurationError

every_broker = pytest.mark.brokers("redis", "sentinel", "rabbitmq")
with_rabbitmq = pytest.mark.brokers("rabbitmq")
with_sentinel = pytest.mark.brokers("sentinel")

REFRESH, SYNC = "worker.tasks.tokens.refresh_providers", "worker.tasks.accounts.sync_providers"
KINDS = {"redis": "Redis", "sentinel": "Redis", "rabbitmq": "RabbitMQ"}


def dashtam(world: World, *words: str, **env: str) -> LocalProcess:
    process = world.start_process([sys.executable, "-m", "worker.cli", *words], **env)
    process.wait()
    return process


def json_of(process: LocalProcess) -> Any:
    log = process.logs()
    beginnings = [log.index(mark) for mark in "[{" if mark in log]
    return json.JSONDecoder().raw_decode(log[min(beginnings) :])[0]


def served(url: str, **headers: str) -> str:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - our own http address
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - as above
        return str(answer.read().decode())


@every_broker
def test_status_doctor_exporter_and_flower_say_what_the_broker_holds(world: World) -> None:
    for process in (*world.workers, world.beat):
        kill(process)
    world.servers.forget_messages()
    world.send(REFRESH, [[]], queue="refresh", times=3)
    world.send(SYNC, [[]], queue="sync", times=2)
    wait_for(lambda: world.servers.queued() == 5, what="the messages")
    exporter, flower = str(free_port()), str(free_port())
    readonly = {"READONLY_DATABASE_URL": world.environment["DATABASE_URL"], "EXPORTER_PORT": exporter}
    metrics = world.start_process([sys.executable, "-m", "worker.telemetry.exporter"], **readonly)
    page = world.start_process(
        [sys.executable, "-m", "celery", "-A", "worker.app", "flower"], FLOWER_PORT=flower, FLOWER_PASSWORD="made-up"
    )
    metrics.wait_for_log("exporter_ready")
    page.wait_for_log("Visit me at")

    status = json_of(dashtam(world, "status", "--json"))["redis"]
    queues = next(line for line in json_of(dashtam(world, "doctor", "--json")) if line["check"] == "queues")
    scraped = served(f"http://127.0.0.1:{exporter}/metrics")
    login = base64.b64encode(b"operator:made-up").decode()
    seen = json.loads(served(f"http://127.0.0.1:{flower}/api/queues/length", Authorization=f"Basic {login}"))
    shown = served(f"http://127.0.0.1:{flower}/broker", Authorization=f"Basic {login}")

    assert (status["kind"], status["backlog"]) == (KINDS[BROKER], {"refresh": 3, "sync": 2, "upkeep": 0})
    assert queues["found"] == "refresh 3, sync 2, upkeep 0"
    assert 'dashtam_queue_depth{queue="refresh"} 3.0' in scraped
    assert 'dashtam_queue_depth{queue="sync"} 2.0' in scraped
    assert ('dashtam_up{service="rabbitmq"} 1.0' in scraped) is (BROKER == "rabbitmq")
    assert {line["name"]: line["messages"] for line in seen["active_queues"]} == status["backlog"]
    assert "No queue data is available" not in shown


@every_broker
def test_broker_that_is_away_is_named_and_work_asked_for_is_done_later(world: World) -> None:
    address = {
        "redis": {"REDIS_URL": "redis://127.0.0.1:1/0"},
        "sentinel": {"REDIS_URL": f"sentinel://127.0.0.1:1/0?master={PRIMARY}"},
        "rabbitmq": {"BROKER_URL": RabbitServer.url_at(1)},
    }[BROKER]
    says = {
        "redis": "Redis does not run at 127.0.0.1:1",
        "sentinel": "the Sentinels 127.0.0.1:1 do not answer",
        "rabbitmq": "RabbitMQ does not run at 127.0.0.1:1",
    }[BROKER]

    status = dashtam(world, "status", **address)
    asked = dashtam(world, "sync", "--all", "--force", **address)
    doctor = dashtam(world, "doctor", **address)

    assert (status.wait(), asked.wait(), doctor.wait()) == (4, 4, 1)
    for said in (status, asked, doctor):
        assert says in said.logs()
        assert "pending work is kept" in said.logs()
        assert "Traceback" not in said.logs()
    world.moves_on()
    world.recovers("broker away for a command", hurry=True)
    world.assert_nothing_was_lost(retries=False)


@with_rabbitmq
@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
def test_queues_that_exist_are_used_whatever_their_type(world: World, queue_type: str) -> None:
    assert isinstance(world.servers, ServersWithRabbit)
    for process in (*world.workers, world.beat):
        kill(process)
    world.servers.rabbit.forget(remove=True)
    world.servers.rabbit.asked("classic" if queue_type == "classic" else "quorum").require_queues()

    asked = dashtam(world, "sync", "--all", "--force")
    world.workers_of_the_session()
    world.moves_on()
    world.recovers(f"queues were there before, {queue_type}", hurry=True)

    assert asked.wait() == 0, asked.logs()
    assert set(world.servers.rabbit.types().values()) == {queue_type}
    world.assert_nothing_was_lost()


@with_rabbitmq
def test_rabbitmq_without_quorum_queues_is_named_in_one_line(world: World, tmp_path: Path) -> None:
    before = _epmds()
    old = RabbitServer(tmp_path / "old", feature_flags="")
    old.start()
    address = {"BROKER_URL": old.url}
    try:
        with pytest.raises(ConfigurationError, match="cannot make quorum queues"):
            old.asked().require_queues()
        worker = world.start_worker(wait=False, **address)
        beat = world.start_beat(**address)
        doctor = dashtam(world, "doctor", **address)
        for process in (worker.process, beat):
            assert process.wait() == ConfigurationError.exit_code
            assert "error: BROKER_QUEUE_TYPE: RabbitMQ 3." in process.logs()
            assert "Traceback" not in process.logs()
        assert "set BROKER_QUEUE_TYPE=classic" in doctor.logs()
        world.start_worker(**address, BROKER_QUEUE_TYPE="classic")
    finally:
        old.kill()

    assert _epmds() == before, "a RabbitMQ that has ended leaves no process of Erlang's behind"
    world.moves_on()
    world.recovers("RabbitMQ without quorum queues", hurry=True)
    world.assert_nothing_was_lost(retries=False)


def _epmds() -> set[str]:
    """Processes of Erlang's that hold names of nodes."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().strip() == "epmd":
                found.add(process.name)
    return found


@with_sentinel
def test_sentinel_that_knows_no_such_primary_is_named_and_waited_for(world: World) -> None:
    assert isinstance(world.servers, ServersWithSentinel)
    address = {"REDIS_URL": world.environment["REDIS_URL"].replace(f"master={PRIMARY}", "master=unknown")}
    says = "know no primary 'unknown' that works"

    worker = world.start_worker(wait=False, **address)
    doctor = dashtam(world, "doctor", **address)
    asked = dashtam(world, "sync", "--all", "--force", **address)
    worker.process.wait_for_log("No master found for 'unknown'")

    assert worker.process.running
    assert (doctor.wait(), asked.wait()) == (1, 4)
    assert says in doctor.logs()
    assert "SENTINEL MASTER unknown" in doctor.logs()
    assert says in asked.logs()
    world.moves_on()
    world.recovers("Sentinel without that primary", hurry=True)
    world.assert_nothing_was_lost(retries=False)
