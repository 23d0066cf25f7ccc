"""Compose's own client reads the file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.environment import ROOT
from tests.unit.test_compose import DOTENV, OF_THE_CONTAINER, OWN, rendered

pytestmark = pytest.mark.deep

CLIENTS = [client for client in (["docker-compose"], ["docker", "compose"]) if shutil.which(client[0])]


def client() -> list[str]:
    """The first client that works; `docker` alone need not have one."""
    for command in CLIENTS:
        if subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("no Compose client here: tests/unit/test_compose.py has parsed the file, no client has validated it")


def test_compose_hands_over_what_the_unit_tests_say(tmp_path: Path) -> None:
    for name in ("docker-compose.yml", "ops"):
        (tmp_path / name).symlink_to(ROOT / name)
    dotenv = {
        name: "7001" if name.endswith("_PORT") else f"of {name}" for name in DOTENV if name not in OF_THE_CONTAINER
    }
    (tmp_path / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in dotenv.items()))
    command = [*client(), "--project-directory", str(tmp_path), "-f", str(tmp_path / "docker-compose.yml"), "config"]

    done = subprocess.run(command, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, check=True)

    services = yaml.safe_load(done.stdout)["services"]
    assert {name: services[name]["environment"] for name in OWN} == {name: rendered(name, dotenv) for name in OWN}


def test_compose_accepts_the_file_with_all_its_profiles() -> None:
    profiles = ["--profile", "sandbox", "--profile", "test", "--profile", "monitoring"]
    done = subprocess.run([*client(), *profiles, "config", "-q"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
