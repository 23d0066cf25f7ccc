"""A whole `make run`, in a directory like a checkout."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from tests.support.environment import ROOT
from tests.support.waiting import PATIENCE_S, wait_for
from worker.settings import Settings
from worker.settings.only import variables_of


@contextmanager
def demonstration(place: Path) -> Iterator[Path]:
    """Within the block `make run` is up in `place`, and every login was synced once."""
    for entry in ROOT.iterdir():
        if entry.name not in (".dashtam", ".venv", ".env", ".git"):
            (place / entry.name).symlink_to(entry)
    (place / ".venv").symlink_to(sys.prefix)
    # The environment is the one that the tests run in: it is not made anew.
    command = ["make", "run", "-o", ".venv/.complete"]
    with (place / "make.out").open("w") as output:
        process = subprocess.Popen(
            command, cwd=place, env=clean_environment(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            try:
                wait_for(lambda: _all_synced(place), seconds=2 * PATIENCE_S, what="all logins to be synced", every=2)
            except AssertionError as error:
                error.add_note((place / "make.out").read_text())
                error.add_note(_logins(place).stdout)
                raise
            yield place
        finally:
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE_S) in (0, 2, 130, -signal.SIGINT), (place / "make.out").read_text()


def clean_environment() -> dict[str, str]:
    """Nothing of the test session's own settings."""
    ours = (
        "ARGS",
        "DASHTAM_",
        "DATABASE_",
        "REDIS_",
        "ENCRYPTION_",
        "TEST_",
        "PLAID_",
        "SCHWAB_",
        "FLOWER_",
        "WEB_",
        "MAKE",
    )
    settings = variables_of(Settings)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours) and name not in settings}
    return kept | {"COLUMNS": "200"}


def _logins(place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [".venv/bin/dashtam", "providers", "--json"],
        cwd=place,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def _all_synced(place: Path) -> bool:
    done = _logins(place)
    logins = json.loads(done.stdout) if done.returncode == 0 else []
    return len(logins) == 4 and all(login["synced_at"] for login in logins)


def link_in_a_browser(
    command: str, environment: Mapping[str, str], consent: Callable[[dict[str, str]], str]
) -> tuple[int, str]:
    """Runs `dashtam link` as a person does; returns its exit code and its output.

    Args:
        command: the printed command.
        environment: its environment.
        consent: takes the parameters of the printed address, and returns the one on which the browser lands.
    """
    with subprocess.Popen(
        [str(Path(sys.executable).with_name("dashtam")), *shlex.split(command, comments=True)[1:]],
        env=dict(environment),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        told = ""
        while not told.startswith("http"):
            told = process.stderr.readline()
            assert told, "it printed no address"
        landed = consent(dict(parse_qsl(urlsplit(told.strip()).query)))
        out, err = process.communicate(f"{landed}\n")
    return process.returncode, out + err


@contextmanager
def in_home(variables: Mapping[str, str]) -> Iterator[Callable[[str], subprocess.CompletedProcess[str]]]:
    """A shell in which `dashtam` is ours and knows this home alone; what it has started is stopped at the end."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = clean_environment() | {"PATH": path, **variables}

    def shell(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["/bin/sh", "-c", line], env=environment, capture_output=True, text=True, check=False)

    try:
        yield shell
    finally:
        shell("dashtam devstack down")
