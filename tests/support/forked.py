"""Celery's programs as forks of a process that has everything imported.

A worker or beat that a command starts takes three seconds of processor time until it has imported its modules. A fork
takes some ten milliseconds. Otherwise it is the same: it has the variables, the directory, the output and the process
group that the command would have. REMAP_SIGTERM is set in it, as `make worker` and all other ways to start a worker do.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

from worker.settings.built_in import built_in_integrations

_PRELOAD = [
    "worker.app",  # before what reads the signals that it sets
    "celery.__main__",
    "celery.app.amqp",
    "celery.app.control",
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.concurrency.prefork",
    "celery.events.state",
    "celery.fixups.django",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "celery.worker.worker",
    "kombu.transport.redis",
    "tests.support.faults_beat",
    "tests.support.faults_clock",
    "tests.support.feed_campaign",
    "tests.support.forked",
    "tests.support.refreshers",
    "worker.beat",
    "worker.consumer",
    "worker.services.availability.quotas",
    "worker.services.refresh.access_token",
    *(f"worker.tasks.{name}" for name in ("accounts", "tokens", "upkeep")),
    *(f"worker.integrations.{key}.integration" for key in built_in_integrations()),
]
_PROGRAMS = {"celery": "celery.__main__", "tests.support.faults_clock": "tests.support.faults_clock"}
"""What can be forked: the module that a command names, and the one with its `main`."""


def fork_server() -> ForkServerContext:
    """The one process from which all others are forked; started by the first that is asked of it."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(_PRELOAD)
    atexit.unregister(_stop_fork_server)
    atexit.register(_stop_fork_server)
    return found


def _stop_fork_server() -> None:
    """Waits until it has ended, which takes it a moment: a session leaves no process behind."""
    with suppress(ChildProcessError):  # this process is itself a fork of the one that started it
        forkserver._forkserver._stop()  # type: ignore[attr-defined]


def forkable(argv: Sequence[str]) -> bool:
    """Whether the command runs Celery, and can be forked."""
    return tuple(argv[:2]) == (sys.executable, "-m") and argv[2] in _PROGRAMS


class Forked:
    """One of Celery's programs. It has those methods of `subprocess.Popen` that `LocalProcess` needs.

    Args:
        argv: the command in whose place it is: `python -m celery …`; see `forkable`.
        env: all of its variables.
        directory: in which it runs.
        log: file that its output is appended to.
    """

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], directory: Path, log: Path) -> None:
        server = fork_server()
        reading, writing = server.Pipe(duplex=False)
        self._process = server.Process(
            target=_run, args=(list(argv[2:]), dict(env), str(directory), str(log), writing), daemon=True
        )
        self._process.start()
        writing.close()
        with reading:
            self.pid: int = reading.recv()  # it leads its group now, so that it can be killed with its children

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; nothing while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float) -> int:
        """Waits for its end.

        Raises:
            subprocess.TimeoutExpired: it runs longer.
        """
        self._process.join(seconds)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired("celery", seconds)
        return code

    def terminate(self) -> None:
        """SIGTERM to it alone."""
        os.kill(self.pid, signal.SIGTERM)


def _run(argv: list[str], env: dict[str, str], directory: str, log: str, begun: Connection) -> None:
    os.setsid()
    with begun:
        begun.send(os.getpid())
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        opened = os.open(path, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    os.dup2(1, 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(env | {"REMAP_SIGTERM": "SIGQUIT"})
    from worker import app

    if "worker.app" in argv:
        app._begin(argv[argv.index("worker.app") + 1])  # a command does this when it imports the module
    sys.argv = argv
    try:
        sys.exit(import_module(_PROGRAMS[argv[0]]).main())
    finally:
        atexit._run_exitfuncs()  # forks leave them out
