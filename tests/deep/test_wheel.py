"""`pip install dashtam-worker[embedded]` in an empty folder: its programs need nothing of this tree."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from worker.devstack import Devstack


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / ".dashtam"
    Devstack(tmp_path / ".dashtam", durable=True, environ={}).erase()


def dashtam(*words: str, here: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    program = shutil.which("dashtam", path=env["PATH"])
    assert program is not None
    return subprocess.run([program, *words], cwd=here, env=env, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_servers_start_the_schema_is_made_and_commands_answer(
    installed: dict[str, str], home: Path, tmp_path: Path
) -> None:
    def run(*words: str) -> str:
        done = dashtam(*words, here=tmp_path, env=installed)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        return done.stdout

    run("devstack", "up")
    assert "the schema is at head" in run("migrate")
    assert "0 active" in run("status")
    assert "down" in run("devstack", "down")


def test_missing_extra_is_named_with_the_command_that_installs_it(
    installed: dict[str, str], home: Path, tmp_path: Path
) -> None:
    programs = installed["PATH"].split(":")[0]
    elsewhere = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}  # so that Redis alone is to be started

    done = dashtam("devstack", "up", here=tmp_path, env={"PATH": programs, **elsewhere})

    assert done.returncode == 5, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "no usable Redis was found; nothing was started. Run: pip install 'dashtam-worker[embedded]'" in done.stderr
