"""The one Postgres and the one Redis of a test session."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.support.environment import ROOT
from worker.devstack import Devstack, Urls

TEST_HOME = ROOT / ".dashtam" / "test"
"""Where `make test-up` keeps the test environment."""


@contextmanager
def session_servers(environ: Mapping[str, str] | None = None) -> Iterator[Urls]:
    """Postgres and Redis for one session at a time.

    In this order: those that TEST_DATABASE_URL and TEST_REDIS_URL name (DATABASE_URL and REDIS_URL are never used:
    tests drop databases and empty Redis); those that `make test-up` left, unless another session has them; private
    ones that end with the session. A server that cannot be had is an error, never a skip.
    """
    environ = dict(os.environ if environ is None else environ)
    given = {name: environ[f"TEST_{name}"] for name in ("DATABASE_URL", "REDIS_URL") if environ.get(f"TEST_{name}")}
    standing = Devstack(TEST_HOME, durable=False, environ=given)
    if all(server.state != "down" for server in standing.status()):
        with _reserved() as free:
            if free:
                yield standing.up()
                return
    home = Path(tempfile.gettempdir()) / f"dashtam-tests-{uuid4().hex[:12]}"
    with Devstack(home, durable=False, environ=given).session(erase=True) as urls:
        yield urls


@contextmanager
def _reserved() -> Iterator[bool]:
    """Whether the standing servers are ours until the end; two sessions would empty each other's Redis."""
    TEST_HOME.mkdir(parents=True, exist_ok=True)
    with (TEST_HOME / "session.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
