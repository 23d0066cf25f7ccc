"""Reads and writes `run.env`: it leads commands to the servers of the last `dashtam run` or `dashtam devstack up`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from worker.devstack import default_home

ENV_FILE = "run.env"
_DECISIVE = ("DATABASE_URL", "DATABASE_URL_FILE", "DASHTAM_ENV_FILE")


def adopt_environment() -> None:
    """Loads the home's `run.env`, unless the environment or a `.env` file already has the address of Postgres."""
    if any(os.environ.get(name) for name in _DECISIVE) or Path(".env").exists():
        return
    path = default_home() / ENV_FILE
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, equals, value = line.partition("=")
        if equals:
            os.environ.setdefault(name, value)
    os.environ["DASHTAM_ENV_FILE"] = os.devnull  # all of it is in the environment now: do not read the file again


def write_environment(home: Path, variables: Mapping[str, str]) -> Path:
    """Writes `run.env`, one variable in each line; only its owner can read it."""
    path = home / ENV_FILE
    write_private(path, "".join(f"{name}={value}\n" for name, value in variables.items()))
    return path


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner can read, in one atomic step."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.rename(path)
