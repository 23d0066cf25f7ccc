"""Workers of the release before and of this one share the new schema while an upgrade is under way."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.faults_processes import kill
from tests.support.faults_world import World
from tests.support.releases import previous_release
from tests.support.waiting import PATIENCE_S, wait_for
from tests.support.worker_nodes import WorkerNode

TOGETHER_S = 60.0


@pytest.mark.release
def test_workers_of_the_release_before_go_on_beside_this_one_s_on_the_new_schema(world: World, tmp_path: Path) -> None:
    release = previous_release(tmp_path / "before")
    imported = [sys.executable, "-c", "import worker; print(worker.__file__)"]
    found = subprocess.run(imported, cwd=release.tree, capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).is_relative_to(release.tree), f"{found} is not the worker of {release.version}"
    old = world.start_worker(tree=release.tree)
    new = world.workers[0]
    kill(world.workers[1])

    until = time.monotonic() + TOGETHER_S
    rounds = 0
    while time.monotonic() < until or (not _have_worked(old, new) and time.monotonic() < until + PATIENCE_S):
        rounds += 1
        if rounds <= 2:
            world.moves_on()
        else:
            world.hours_pass(*world.ids)
        world.settle()
        sync_all_in_full(world, rounds)

    for worker, version in ((old, release.version), (new, "this one")):
        told = worker.logs()
        assert "sync_ended" in told, f"the worker of {version} synced nothing"
        assert "refresh_batch" in told, f"the worker of {version} refreshed nothing"
    assert world.query("SELECT mode, status, error, error_reason FROM sync_runs WHERE status <> 'completed'") == []
    assert world.query("SELECT status, error, reason FROM token_refreshes WHERE status <> 'done'") == []
    # What the release before wrote is as it read it; a full sync of this one ends the upgrade.
    kill(old)
    world.workers_of_the_session()
    sync_all_in_full(world, rounds + 1)
    world.assert_nothing_was_lost()


def sync_all_in_full(world: World, times: int) -> None:
    """Waits until each login was synced in full so often; one that was being synced is asked again."""

    def behind() -> list[str]:
        rows = world.query(
            """
            SELECT p.id::text FROM providers p LEFT JOIN sync_runs r ON r.provider_id = p.id GROUP BY p.id
            HAVING count(*) FILTER (WHERE r.mode = 'full' AND r.status <> 'running') < :times
            """,
            times=times,
        )
        return [row[0] for row in rows]

    def are_done() -> bool:
        left = behind()
        if left and world.is_idle() and behind() == left:
            for id_ in left:  # one message each, so that both releases have some to do
                world.send("worker.tasks.accounts.sync_providers", [[id_], "manual", "full"])
        return not left

    wait_for(are_done, every=0.2, what=f"{times} full syncs of every login")


def _have_worked(*workers: WorkerNode) -> bool:
    """Which worker takes a message is chance: whether each has had a sync and a refresh by now."""
    return all("sync_ended" in worker.logs() and "refresh_batch" in worker.logs() for worker in workers)
