"""What the exporter and `dashtam` commands say of a Postgres that says nothing, and that they do not wait for ever."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.availability.conftest import SOON
from tests.integration.ops.scraping import Scraped
from tests.support.command_line import Dashtam, command_line
from tests.support.environment import ROOT
from tests.support.proxy import Proxy
from worker.runtime import Runtime, use_runtime
from worker.settings import ExporterSettings, Settings, load
from worker.telemetry.exporter import Exporter

pytestmark = pytest.mark.deep


# The exporter


@pytest.fixture
def exporter(settings: Settings, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Exporter]:
    monkeypatch.setattr("worker.telemetry.exporter._LIMITS", SOON)
    monkeypatch.setattr("worker.telemetry.gauges._KEPT_SECONDS", 0)
    monkeypatch.setattr("worker.telemetry.gauges._SHARE", 0)
    made = Exporter(load(ExporterSettings, DASHTAM_HOME=tmp_path, readonly_database_url=url))
    yield made
    made.close()


def is_up(exporter: Exporter) -> float:
    return Scraped(exporter.answer())("dashtam_up", service="postgres")


def test_exporter_says_that_postgres_is_away_and_is_not_stuck_afterwards(exporter: Exporter, proxy: Proxy) -> None:
    assert is_up(exporter) == 1
    for _ in range(2):
        with proxy.vanished():
            assert [is_up(exporter), is_up(exporter)] == [0, 0]
        assert is_up(exporter) == 1


def test_exporter_whose_answers_stand_still_on_their_way_goes_on_with_a_new_connection(
    exporter: Exporter, proxy: Proxy
) -> None:
    assert is_up(exporter) == 1
    with proxy.stalled():
        assert is_up(exporter) == 0
    assert is_up(exporter) == 1


# Commands


@pytest.fixture
def dashtam(own_runtime: Runtime) -> Iterator[Dashtam]:
    """Runs a command in this process, on a Postgres behind the proxy."""
    with use_runtime(own_runtime), command_line() as run:
        yield run


COMMANDS = [
    "providers list",
    "status",
    "refresh Home",
    "sync Home",
    "explain Home",
    "runs list",
    "failures list",
    "quarantine list",
    "integrations list",
    "keys status",
    "audit list",
    "audit verify",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_command_ends_with_one_line(dashtam: Dashtam, proxy: Proxy, line: str) -> None:
    with proxy.vanished():
        result = dashtam(*line.split())

    assert result.exit_code == 4, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert "Postgres did not answer" in result.stderr


def test_command_whose_postgres_falls_silent_while_it_works_ends_with_one_line(
    dashtam: Dashtam, own_runtime: Runtime, proxy: Proxy
) -> None:
    assert dashtam("providers", "list").exit_code == 0
    with proxy.stalled():
        result = dashtam("providers", "list")

    assert result.exit_code == 4, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert dashtam("providers", "list").exit_code == 0


@pytest.mark.parametrize("line", ["providers list", "migrate", "database roles"])
def test_program_ends_with_one_line(process_environment: dict[str, str], proxy: Proxy, url: str, line: str) -> None:
    limits = {name.upper(): str(value) for name, value in dict(SOON).items()}
    with proxy.vanished():
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", *line.split()],
            env=dict(os.environ) | process_environment | limits | {"DATABASE_URL": url},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    assert done.returncode == 4, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "Postgres did not answer" in done.stderr
