from __future__ import annotations

import os
import signal
from collections.abc import Mapping

import pytest
from sqlalchemy import Engine

from tests.integration.tokens.crashes import PLACES, Scene, give_up_honestly, one_call_per_generation, survive_a_kill
from tests.support import refreshers
from tests.support.sandbox import SandboxAdmin
from tests.support.waiting import wait_for
from worker.runtime import Runtime

pytestmark = pytest.mark.deep  # each test starts processes that it kills


@pytest.fixture
def scene(runtime: Runtime, engine: Engine, sandbox: SandboxAdmin, server_environment: Mapping[str, str]) -> Scene:
    return Scene(runtime, engine, sandbox, {**os.environ, **server_environment})


@pytest.mark.parametrize("place", PLACES)
def test_killed_worker_loses_no_token_where_a_retry_is_granted(scene: Scene, place: str) -> None:
    survive_a_kill(scene, place)


@pytest.mark.parametrize("place", ["before_send", "after_rotation", "before_commit"])
def test_killed_worker_ends_in_lost_rotation_where_none_is(scene: Scene, place: str) -> None:
    give_up_honestly(scene, place)


def test_eight_processes_racing_for_one_token_make_one_call_per_generation(scene: Scene) -> None:
    one_call_per_generation(scene, rounds=10)


def test_worker_stopped_beyond_its_lease_cannot_overwrite(scene: Scene) -> None:
    scene.sandbox.set_policy("schwab", reuse="grace")
    id_, _ = scene.link()
    stale = refreshers.start({**scene.environment, "FAILPOINTS": "after_answer=stop"}, id_)
    wait_for(lambda: _is_stopped(stale.pid or 0), what="the worker to stop")
    scene.end_leases()

    second = scene.refresh(id_)
    os.kill(stale.pid or 0, signal.SIGCONT)
    stale.join(20)

    assert (second, stale.exitcode) == ("refreshed", 0)
    assert scene.provider(id_)["generation"] == 2
    assert scene.refresh(id_, force=True) == "refreshed"  # what is stored is what the provider takes


def test_worker_stopped_in_its_commit_keeps_others_out_until_it_goes_on(scene: Scene) -> None:
    id_, login = scene.link()
    stopped = refreshers.start({**scene.environment, "FAILPOINTS": "before_commit=stop"}, id_)
    wait_for(lambda: _is_stopped(stopped.pid or 0), what="the worker to stop")

    meanwhile = scene.refresh(id_)
    os.kill(stopped.pid or 0, signal.SIGCONT)
    stopped.join(20)

    assert (meanwhile, stopped.exitcode) == ("busy", 0)
    assert scene.refresh(id_) == "fresh"
    assert len(scene.sandbox.refreshes(login)) == 1


def _is_stopped(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "T"
