"""Fixtures that several deep tests share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.demonstration import demonstration
from tests.support.wheel import EXTRAS, PROGRAMS, install


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> dict[str, str]:
    """PATH and PYTHONPATH of a shell in which the wheel with its extras is installed, and this tree is not."""
    own = tmp_path_factory.getbasetemp()
    shared = own if worker_id == "master" else own.parent  # one for all processes of the session
    directory = shared / "wheel"
    with (shared / "wheel.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            directory.mkdir()
            install(directory)
    return {
        "PATH": f"{directory / PROGRAMS}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(directory / EXTRAS),
    }


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory like a checkout, in which `make run` is up. Its tests are one group, so that they share it."""
    with demonstration(tmp_path_factory.mktemp("tour")) as place:
        yield place
