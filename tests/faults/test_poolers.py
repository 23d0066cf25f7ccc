"""PgBouncer in transaction mode stands before Postgres: all work is done, and what it drops or refuses is named."""

from __future__ import annotations

import sys

import pytest

from tests.support.faults_world import World
from tests.support.poolers import pgbouncer
from tests.support.processes import LocalProcess
from worker.errors import ConfigurationError

pytestmark = pytest.mark.release


def doctor(world: World, **env: str) -> LocalProcess:
    process = world.start_process([sys.executable, "-m", "worker.cli", "doctor"], **env)
    process.wait()
    return process


def test_all_work_is_done_through_a_pooler(world: World) -> None:
    with pgbouncer(world.environment["DATABASE_URL"]) as address:
        pooled = {"DATABASE_URL": address, "DATABASE_POOLER": "true"}
        world.only_worker(**pooled)
        world.start_worker(**pooled)
        looked = doctor(world, **pooled)
        world.moves_on()
        world.settle()
        world.servers.terminate_backends()
        world.moves_on()
        world.settle()

        assert "ok   postgres" in looked.logs()
        world.workers_of_the_session()
    world.assert_nothing_was_lost()


@pytest.mark.parametrize(
    ("ignores", "says"),
    [
        ("extra_float_digits", "refuses our options: unsupported startup parameter: options"),
        (
            "extra_float_digits,options",
            "of our connections does not reach Postgres, because a pooler drops it",
        ),
    ],
)
def test_pooler_that_refuses_or_drops_our_limits_stops_the_worker_with_one_line(
    world: World, ignores: str, says: str
) -> None:
    with pgbouncer(world.environment["DATABASE_URL"], ignores=ignores) as address:
        worker = world.start_worker(wait=False, DATABASE_URL=address)
        looked = doctor(world, DATABASE_URL=address)

        migrate = world.start_process([sys.executable, "-m", "worker.cli", "migrate"], DATABASE_URL=address)

        assert worker.process.wait() == ConfigurationError.exit_code
        assert migrate.wait() != 0
        assert "MIGRATE_DATABASE_URL" in migrate.logs()
    for said in (worker.logs(), looked.logs(), migrate.logs()):
        assert "Traceback" not in said
    for said in (worker.logs(), looked.logs()):
        assert says in said
    assert "DATABASE_POOLER=true" in worker.logs()
    world.moves_on()
    world.recovers("a pooler without our limits", hurry=True)
    world.assert_nothing_was_lost(retries=False)
