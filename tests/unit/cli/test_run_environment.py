from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from worker.cli.demo_logins import LOGINS
from worker.cli.home import adopt_environment
from worker.cli.run import environment
from worker.cli.run.environment import Demonstration, keys_file, prepare
from worker.cli.run.processes import SANDBOX, specs
from worker.cli.run.sandbox import Progress
from worker.devstack import Urls, only_one
from worker.errors import Refused
from worker.integrations.registry import REGISTRY, build_integrations
from worker.sandbox.stand_ins import stand_ins
from worker.services.encryption import EncryptionService
from worker.settings import Settings, load

URLS = Urls("postgresql+psycopg://dashtam:pw-database@127.0.0.1:1/dashtam", "redis://:pw-redis@127.0.0.1:2/0")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home; what `prepare` puts into the environment is undone, and no port is probed."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(environment, "free_port", lambda: 40001)
    monkeypatch.setattr(environment, "_port", lambda *_: 40002)
    os.environ.pop("ENCRYPTION_KEYS", None)
    return tmp_path


def _prepare(home: Path) -> Demonstration:
    return prepare(home, URLS, access_seconds=12, once=True)


@pytest.mark.deep
def test_keys_and_passwords_are_made_once_and_for_their_owner_alone(home: Path) -> None:
    first = _prepare(home)
    keys, password = keys_file(home).read_text(), first.flower_password

    again = _prepare(home)

    assert keys_file(home).read_text() == keys
    assert again.flower_password == password
    assert EncryptionService(keys.strip()).key_id == "k1"
    for path in (keys_file(home), first.flower_password_file, first.env_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_commands_in_another_terminal_read_the_same_variables(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = dict(_prepare(home).variables)
    for name in variables:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DASHTAM_HOME", str(home))
    monkeypatch.chdir(home)

    adopt_environment()

    assert {name: os.environ.get(name) for name in variables} == variables | {"DASHTAM_ENV_FILE": os.devnull}
    settings = load(Settings)
    assert set(build_integrations(settings.enabled_integrations, settings)) == set(settings.enabled_integrations)


def test_keys_that_the_environment_has_are_used(home: Path) -> None:
    os.environ["ENCRYPTION_KEYS"] = "mine:x"

    assert "ENCRYPTION_KEYS_FILE" not in _prepare(home).variables


def test_an_app_on_another_port_can_be_added_and_stays_added_when_it_starts_again(home: Path) -> None:
    os.environ["LINK_RETURN_ORIGINS"] = "http://127.0.0.1:3000"

    first = _prepare(home)
    again = _prepare(home)

    origins = first.variables["LINK_RETURN_ORIGINS"]
    assert origins == f"{first.web_url},http://127.0.0.1:3000"
    assert again.variables["LINK_RETURN_ORIGINS"] == origins


@pytest.mark.deep
@pytest.mark.parametrize("access_seconds", [4, 12, 60, 1800])
def test_the_environment_makes_safe_settings(home: Path, monkeypatch: pytest.MonkeyPatch, access_seconds: int) -> None:
    demonstration = prepare(home, URLS, access_seconds=access_seconds, once=False)
    for name, value in demonstration.variables.items():
        monkeypatch.setenv(name, value)

    settings = load(Settings)

    assert settings.http_total_seconds < settings.lease_seconds
    assert {login.provider_key for login in LOGINS} <= set(settings.enabled_integrations)


@pytest.mark.deep
def test_every_integration_that_needs_no_credentials_of_its_owner_can_be_tried(home: Path) -> None:
    enabled = set(_prepare(home).variables["INTEGRATIONS"].split(","))

    assert {key for key in REGISTRY if key in stand_ins()[0] or REGISTRY[key].reads_files} == enabled
    assert {"simplefin", "statement_files"} <= enabled


@pytest.mark.deep
def test_nothing_of_a_dotenv_file_reaches_a_demonstration(home: Path) -> None:
    assert _prepare(home).variables["DASHTAM_ENV_FILE"] == str(home / "run.env")


def test_no_secret_is_on_a_command_line(home: Path) -> None:
    demonstration = _prepare(home)
    secrets = ["pw-database", "pw-redis", demonstration.sandbox_token, demonstration.flower_password]
    secrets.append(keys_file(home).read_text().strip())

    words = [word for spec in specs(demonstration, access_seconds=12, live=True, linked=bool) for word in spec.argv]

    assert not [word for word in words for secret in secrets if secret in word]


@pytest.mark.deep
def test_beat_and_workers_begin_once_the_sandbox_knows_the_demo_user(home: Path) -> None:
    processes = {spec.name: spec for spec in specs(_prepare(home), access_seconds=12, live=False, linked=lambda: False)}

    assert set(processes) == {SANDBOX, "worker-refresh", "worker-sync", "worker-upkeep", "beat", "flower", "web"}
    assert all(SANDBOX in spec.after for name, spec in processes.items() if name != SANDBOX)
    assert processes[SANDBOX].ready is not None
    assert not processes[SANDBOX].ready()
    assert processes["beat"].argv[0] == sys.executable


def test_two_runs_of_one_home_are_refused(tmp_path: Path) -> None:
    with only_one(tmp_path), pytest.raises(Refused, match=rf"process {os.getpid()}"), only_one(tmp_path):
        pass


def test_a_run_that_has_ended_leaves_its_home_free(tmp_path: Path) -> None:
    with only_one(tmp_path):
        pass

    with only_one(tmp_path):
        assert (tmp_path / "run.lock").read_text() == str(os.getpid())


def test_books_are_brought_back_to_where_they_were(tmp_path: Path) -> None:
    Progress(tmp_path / "sandbox.json").save(17)

    assert Progress(tmp_path / "sandbox.json").steps == 17


def test_books_of_another_day_begin_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Progress(tmp_path / "sandbox.json")
    progress.save(17)
    monkeypatch.setattr("worker.cli.run.sandbox._today", lambda: "2001-01-01")

    assert progress.is_of_another_day
    assert progress.steps == 0


@pytest.mark.parametrize("content", [b"", b"[1]", b"{"])
def test_a_damaged_note_means_the_beginning(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "sandbox.json").write_bytes(content)
    progress = Progress(tmp_path / "sandbox.json")

    assert progress.steps == 0
    assert not progress.is_of_another_day
