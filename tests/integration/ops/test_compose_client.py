"""Compose's own client reads the file."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.environment import ROOT

pytestmark = pytest.mark.deep

CLIENTS = [client for client in (["docker-compose"], ["docker", "compose"]) if shutil.which(client[0])]


def client() -> list[str]:
    """The first client that works; `docker` alone need not have one."""
    for command in CLIENTS:
        if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("no Compose client here: tests/unit/test_compose.py has parsed the file, no client has validated it")


def test_compose_accepts_the_file_with_all_its_profiles() -> None:
    profiles = ["--profile", "sandbox", "--profile", "test", "--profile", "monitoring"]
    done = subprocess.run([*client(), *profiles, "config", "-q"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
