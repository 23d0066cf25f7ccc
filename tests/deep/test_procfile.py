"""Every line of the Procfile, started as a Procfile runner would, in an empty folder after `pip install`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.ops.conftest import free_port
from tests.support.environment import ROOT
from tests.support.processes import LocalProcess
from tests.support.waiting import wait_for
from worker.devstack.tether import Tether

LINES = dict(re.findall(r"^([a-z]+): (.*)$", (ROOT / "Procfile").read_text(), re.MULTILINE))
READY = {"beat": "beat: Starting", "flower": "Visit me at", "exporter": "exporter_ready", "web": "Uvicorn running on"}


@pytest.fixture
def processes(
    server_environment: dict[str, str], engine: object, installed: dict[str, str], tmp_path: Path, tether: Tether
) -> Iterator[dict[str, LocalProcess]]:
    (tmp_path / "empty").mkdir()
    environment = {
        **server_environment,
        **installed,
        "DASHTAM_HOME": str(tmp_path / "home"),
        "FLOWER_PASSWORD": "only-for-this-test",
        "FLOWER_PORT": str(free_port()),
        "EXPORTER_PORT": str(free_port()),
        "WEB_PORT": str(free_port()),
    }
    started = {
        name: LocalProcess(
            name,
            ["/bin/sh", "-c", f"exec {line}"],
            log=tmp_path / f"{name}.log",
            env=environment | {"ALIVE_FILE": str(tmp_path / f"{name}.alive")},
            prompt=READY.get(name, " ready."),
            tether=tether,
            tree=tmp_path / "empty",
        )
        for name, line in LINES.items()
    }
    for process in started.values():
        process.start()
    yield started
    for process in started.values():
        process.stop()


@pytest.mark.long
def test_every_process_becomes_ready_and_stops_when_told(processes: dict[str, LocalProcess], tmp_path: Path) -> None:
    for process in processes.values():
        process.wait_until_ready()
    for name in ("refresh", "sync", "upkeep", "beat"):
        wait_for((tmp_path / f"{name}.alive.connected").exists, what=f"the sign of life of {name}")
        assert (tmp_path / f"{name}.alive").exists()

    for process in processes.values():
        process.signal(15)

    assert {name: process.wait() for name, process in processes.items()} == dict.fromkeys(LINES, 0)
