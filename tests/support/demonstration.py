"""A whole `make run`, in a directory like a checkout."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.environment import ROOT
from tests.support.waiting import PATIENCE_S, wait_for


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
            wait_for(lambda: _all_synced(place), what="all logins to be synced", every=0.5)
            yield place
        finally:
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(PATIENCE_S) in (0, 2, 130, -signal.SIGINT), (place / "make.out").read_text()


def clean_environment() -> dict[str, str]:
    """Nothing of the test session's own settings."""
    ours = ("DASHTAM_", "DATABASE_", "REDIS_", "ENCRYPTION_", "TEST_", "PLAID_", "SCHWAB_", "FLOWER_", "WEB_", "MAKE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"COLUMNS": "200"}


def _all_synced(place: Path) -> bool:
    done = subprocess.run(
        [".venv/bin/dashtam", "providers", "--json"],
        cwd=place,
        env=clean_environment(),
        capture_output=True,
        check=False,
    )
    logins = json.loads(done.stdout) if done.returncode == 0 else []
    return len(logins) == 4 and all(login["synced_at"] for login in logins)
