"""Beat, Flower and the exporter are started with what they read, whatever else a host's environment holds."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from worker.settings import EnvironmentSettings, Settings, load
from worker.settings.only import PROGRAMS, environment_of, main, variables_of
from worker.settings.secret_files import is_secret

SECRETS = {name.upper() for name, field in Settings.model_fields.items() if is_secret(field)}
EVERYTHING = {
    **{name: f"postgresql://localhost/{name}" if "DATABASE" in name else f"made-up-{name}" for name in SECRETS},
    "REDIS_URL": "redis://localhost",
    "BROKER_URL": "amqp://localhost",
    "SCHWAB_APP_SECRET": "made-up",
    "SOME_OTHER_SECRET": "made-up",
    "LOG_LEVEL": "DEBUG",
    "PATH": "/bin",
    "LC_ALL": "C",
}
NEEDED = {
    "beat": {"REDIS_URL", "BROKER_URL"},
    "flower": {"REDIS_URL", "BROKER_URL", "FLOWER_PASSWORD"},
    "exporter": {"REDIS_URL", "BROKER_URL", "READONLY_DATABASE_URL"},
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_gets_its_own_secrets_alone(program: str) -> None:
    given = environment_of(program, EVERYTHING)

    assert given.keys() == NEEDED[program] | {"LOG_LEVEL", "PATH", "LC_ALL", "DASHTAM_ENV_FILE"}


@pytest.mark.deep
@pytest.mark.parametrize("program", PROGRAMS)
def test_it_reads_its_settings_from_that_and_no_file(
    program: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / ".env"
    file.write_text("".join(f"{name}={value}\n" for name, value in EVERYTHING.items() if name != "PATH"))

    given = environment_of(program, {"PATH": "/bin", "DASHTAM_ENV_FILE": str(file)})

    assert given["DASHTAM_ENV_FILE"] == os.devnull
    assert given.keys() & SECRETS == NEEDED[program]
    for name in EVERYTHING:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings: EnvironmentSettings = load(PROGRAMS[program])
    assert not {"encryption_keys", "database_url", "smtp_password"} & type(settings).model_fields.keys()


def test_environment_comes_before_the_file_as_it_does_for_everybody(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("LOG_LEVEL=DEBUG\nFLOWER_PASSWORD=from-the-file\nFLOWER_PORT=1\n")
    environment = {"DASHTAM_ENV_FILE": str(file), "LOG_LEVEL": "ERROR", "FLOWER_PASSWORD_FILE": "/run/secrets/flower"}

    given = environment_of("flower", environment)

    assert (given["LOG_LEVEL"], given["FLOWER_PORT"]) == ("ERROR", "1")
    assert "FLOWER_PASSWORD" not in given


def test_secret_of_the_environment_comes_before_its_file_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("FLOWER_PASSWORD_FILE=/run/secrets/flower\nREDIS_URL_FILE='/run/secrets/redis'\n")

    given = environment_of("flower", {"DASHTAM_ENV_FILE": str(file), "FLOWER_PASSWORD": "from-the-environment"})

    assert "FLOWER_PASSWORD_FILE" not in given
    assert given["REDIS_URL_FILE"] == "/run/secrets/redis"


def test_file_that_is_not_there_is_no_trouble(tmp_path: Path) -> None:
    assert environment_of("beat", {"DASHTAM_ENV_FILE": str(tmp_path / "none")}) == {"DASHTAM_ENV_FILE": os.devnull}


@pytest.mark.parametrize("argv", [[], ["beat"], ["worker", "true"]])
def test_what_it_does_not_know_is_refused(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["only", *argv])

    with pytest.raises(SystemExit, match="usage"):
        main()


def test_secret_may_come_by_file_and_nothing_else_may() -> None:
    assert {"FLOWER_PASSWORD_FILE", "FLOWER_PORT", "DASHTAM_HOME"} <= variables_of(PROGRAMS["flower"])
    assert "FLOWER_PORT_FILE" not in variables_of(PROGRAMS["flower"])
