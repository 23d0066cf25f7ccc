"""Workers and beat of the fault tests: started, killed, stopped and told apart."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.support.environment import ROOT
from tests.support.faults_pace import QUEUES
from tests.support.processes import LocalProcess
from tests.support.waiting import PATIENCE_S, wait_for
from tests.support.worker_nodes import WorkerNode
from worker.devstack.tether import Tether

BEAT = ("-A", "worker.app", "beat", "--loglevel", "INFO", "--scheduler", "tests.support.faults_beat:Scheduler")


class Processes:
    """Two workers and beat that the whole session has, and others that one test starts.

    Args:
        environment: of every process.
        log: directory of their logs.
    """

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.environment = environment
        self.workers: list[WorkerNode] = []
        self.beat: LocalProcess
        self._log = log
        self._tether = Tether(log / "tether.log", grace_s=1)
        self._spare: list[WorkerNode | LocalProcess] = []
        self._numbers = 0

    def close(self) -> None:
        for process in [*self._spare, *self.workers, *([self.beat] if hasattr(self, "beat") else [])]:
            _stop(process)
        self._tether.release()

    def start_worker(
        self, *, wait: bool = True, program: tuple[str, ...] = ("celery",), tree: Path = ROOT, **env: str
    ) -> WorkerNode:
        """One more worker, for this test alone: `start_worker(FAILPOINTS="after_answer=kill")`."""
        worker = self._worker(f"own{self._number()}", env, tree)
        if program != ("celery",):
            worker.process._argv[2:3] = program
        self._spare.append(worker)
        worker.start()
        if wait:
            worker.ready()
        return worker

    def start_beat(self, *argv: str, **env: str) -> LocalProcess:
        """One more beat, for this test alone."""
        beat = self._beat(f"beat{self._number()}", env, argv)
        self._spare.append(beat)
        beat.start()
        return beat

    def workers_of_the_session(self, *, spare: bool = True) -> None:
        """Two workers and beat, whatever was left of them; `spare` ends all others."""
        if spare:
            for process in self._spare:
                _stop(process)
            self._spare.clear()
        if not self.workers:
            self.workers = [self._worker(name, {}) for name in ("one", "two")]
            self.beat = self._beat("beat", {}, ())
        for process in self._of_the_session() if spare else ():
            if process.running:
                process.signal_group(signal.SIGCONT)  # a test that failed may have left it stopped
        down = [worker for worker in self.workers if not worker.process.running]
        for worker in down:
            worker.start()
        if not self.beat.running:
            self.beat.start()
        for worker in down:
            worker.ready()

    def _of_the_session(self) -> list[LocalProcess]:
        return [*(worker.process for worker in self.workers), self.beat]

    def _restart_the_dead(self) -> None:
        for process in self._of_the_session():
            if not process.running:
                process.start()

    def only_worker(self, *, program: tuple[str, ...] = ("celery",), **env: str) -> WorkerNode:
        """Ends all workers but a new one with these variables."""
        worker = self.start_worker(wait=False, program=program, **env)
        for other in self.workers:
            kill(other)
        worker.ready()
        return worker

    def start_process(self, argv: list[str], **env: str) -> LocalProcess:
        """A program on these servers, for this test alone."""
        name = f"own{self._number()}"
        log = self._log / f"{name}.log"
        process = LocalProcess(name, argv, log=log, env=self.environment | env, tether=self._tether)
        self._spare.append(process)
        process.start()
        return process

    def _worker(self, name: str, env: dict[str, str], tree: Path = ROOT) -> WorkerNode:
        return WorkerNode(
            name,
            queues=QUEUES,
            log=self._log / f"worker-{name}.log",
            env=self.environment | env,
            tether=self._tether,
            processes=2,
            options=("--without-heartbeat",),
            tree=tree,
            forked=True,
        )

    def _beat(self, name: str, env: dict[str, str], argv: tuple[str, ...]) -> LocalProcess:
        command = argv or (sys.executable, "-m", "celery", *BEAT)
        log = self._log / f"{name}.log"
        whole = [*command, "--pidfile="]
        return LocalProcess(name, whole, log=log, env=self.environment | env, tether=self._tether, forked=True)

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def log_files(self) -> list[Path]:
        """What all processes have written."""
        return list(self._log.glob("*.log"))

    def logs(self) -> str:
        """The ends of all logs, for the report of a failed test."""
        processes = [*self._spare, *self.workers, *([self.beat] if hasattr(self, "beat") else [])]
        return "\n".join(f"--- {process.name}\n{_told(process.logs())}" for process in processes)


def _told(log: str) -> str:
    """The end of a log, without the routine."""
    routine = (" received", "succeeded in", "Sending due task", "Discarding revoked", '"refresh_batch"')
    lines = [line for line in log.splitlines() if line.strip() and not any(word in line for word in routine)]
    return "\n".join(line[:600] for line in lines[-25:])


def kill(process: WorkerNode | LocalProcess) -> None:
    """SIGKILL to the process and its children, as when a machine loses its power."""
    (process.process if isinstance(process, WorkerNode) else process).kill()


def kill_all(world: Processes) -> None:
    """Every worker of the session at once."""
    for worker in world.workers:
        worker.process.signal_group(signal.SIGKILL)
    for worker in world.workers:
        worker.process.wait()


def kill_children(world: Processes) -> None:
    """SIGKILL to the pool processes of the session's workers; the workers themselves live on."""
    for worker in world.workers:
        if worker.process.running:
            for child in _children(worker):
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)


def wait_until_stopped(worker: WorkerNode) -> None:
    """Waits until a failpoint has suspended one of its pool processes."""

    def is_stopped() -> bool:
        states = [Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] for child in _children(worker)]
        return "T" in states

    wait_for(is_stopped, what=f"a suspended process of {worker.name}", seconds=PATIENCE_S)


def _children(worker: WorkerNode) -> list[int]:
    pid = worker.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def stop(process: WorkerNode) -> None:
    """SIGSTOP: it is alive, holds what it holds, and does nothing."""
    process.process.signal_group(signal.SIGSTOP)


def go_on(process: WorkerNode) -> None:
    """SIGCONT."""
    process.process.signal_group(signal.SIGCONT)


def _stop(process: WorkerNode | LocalProcess) -> None:
    local = process.process if isinstance(process, WorkerNode) else process
    if local.exit_code is not None:
        return
    local.signal_group(signal.SIGKILL)  # their ends are no part of any test, and a kill is quicker
    local.wait()
