"""The disk under Postgres and Redis runs full: what was answered is kept, and all goes on once there is room."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.support.faults_world import World
from tests.support.waiting import wait_for

_MEGABYTES = 220


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of a few megabytes that Postgres's own user can reach."""
    directory = Path(tempfile.mkdtemp(prefix="dashtam-disk-", dir="/var/tmp"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_MEGABYTES}m,mode=755", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        directory.rmdir()
        pytest.skip("a small file system needs the right to mount one")
    yield directory
    subprocess.run(["umount", str(directory)], check=True)  # noqa: S607
    directory.rmdir()


def fill(world: World, disk: Path) -> Path:
    """Fills the disk, then writes through Postgres until it says that it cannot; returns the file to remove."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65_536))
        except OSError:
            pass
    with pytest.raises(DBAPIError):
        _write_until_refused(world)
    return ballast


def _write_until_refused(world: World) -> None:
    with world.servers.engine.connect() as connection:
        connection.execute(text("CREATE TABLE filler (line text)"))
        for _ in range(200):
            connection.execute(text("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 2000)"))


@pytest.mark.long
def test_disk_full_between_rotation_and_commit(small_disk: Path, tmp_path: Path) -> None:
    with World.session(tmp_path, servers=small_disk / "servers") as world:
        world.begin()
        with world.sandbox.paused_after_rotation(login=world.refreshed[0]) as barrier:
            world.moves_on()
            barrier.wait_for_arrivals()
            ballast = fill(world, small_disk)
            barrier.release()
            wait_for(lambda: world.sandbox.refreshes(world.refreshed[0])[-1]["answered"], what="the provider's answer")
            world.let_pass(2)
        ballast.unlink()
        world.recovers("disk full", hurry=True)

        world.assert_nothing_was_lost()
