"""A pytest plugin that tells `tests.support.suite` of each test as it ends: one JSON object a line, into a pipe.

Loaded with `-p tests.support.progress`; the pipe's number is in `PROGRESS_PIPE`. When nobody reads the pipe any more,
the session ends: whoever started it is gone.

It also leaves out what would make a session of thousands of short tests longer: a thread for each test that watches its
time, coverage's tracing of pytest itself, and taking the interpreter apart at the end.
"""

from __future__ import annotations

import atexit
import faulthandler
import importlib
import json
import os
import pkgutil
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.tracing import traced_by

VARIABLE = "PROGRESS_PIPE"
IMPORTS = "PROGRESS_IMPORTS"
"""Set where imports are traced: what modules do when they are imported is the same in each session."""
_PIPE = int(os.environ.pop(VARIABLE))
_IMPORTS = os.environ.pop(IMPORTS, "") != ""
os.set_inheritable(_PIPE, False)  # the pipe ends with this process, not with a server that it leaves behind
_STDERR = os.dup(2)  # before pytest captures it

_HANGING_SECONDS = 300
_TRACED = ("worker", "schedules")
_watched_since = 0.0
_tracer: Any = None
_exit_status: int | None = None


def _tell(**event: object) -> None:
    try:
        os.write(_PIPE, json.dumps(event).encode() + b"\n")
    except BrokenPipeError:
        pytest.exit("make test has ended; nobody reads this session's results", returncode=3)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Tells how many tests there are."""
    _tell(collected=len(session.items))


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Tells of a file that cannot be read."""
    if report.failed:
        _tell(outcome="failed", name=report.nodeid)


def pytest_runtest_logstart() -> None:
    """Ends the session, with every thread's traceback, when no test ends for five minutes."""
    global _watched_since
    now = time.monotonic()
    if now - _watched_since > 1:
        _watched_since = now
        faulthandler.dump_traceback_later(_HANGING_SECONDS, exit=True, file=_STDERR)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tells how a test ended; a failure in its setup or teardown is one too."""
    if report.failed or report.when == "call" or (report.when == "setup" and report.skipped):
        _tell(outcome=report.outcome, name=report.nodeid)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Iterator[None]:
    """Traces what modules of ours do when they are imported, in one session, and nothing else until a test runs."""
    global _tracer
    _tracer = sys.gettrace()
    with traced_by(_tracer if _IMPORTS else None):
        for name in _TRACED if _tracer else ():
            package = importlib.import_module(name)
            for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
                if not module.name.endswith(("__main__", "migrations.env")) and ".versions." not in module.name:
                    importlib.import_module(module.name)
    with traced_by(None):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtestloop() -> Iterator[None]:
    """pytest's own code, traced, would be a tenth of the time."""
    with traced_by(None):
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pyfunc_call() -> Iterator[None]:
    """Traces what a test does."""
    with traced_by(_tracer):
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_fixture_setup() -> Iterator[None]:
    """Traces what a fixture does for it."""
    with traced_by(_tracer):
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """Traces what fixtures do after it."""
    with traced_by(_tracer):
        return (yield)


def pytest_sessionfinish(exitstatus: int) -> None:
    """Tells that the session came to its end."""
    global _exit_status
    _exit_status = int(exitstatus)
    faulthandler.cancel_dump_traceback_later()
    _tell(finished=_exit_status)


def _end_at_once() -> None:
    """Called after everybody else who has something to put in order: this was the first to ask for it."""
    if _exit_status is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_status)


atexit.register(_end_at_once)
