"""Our own processes under test: started, watched, killed, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.support.environment import ROOT
from tests.support.forked import Forked, forkable
from tests.support.waiting import PATIENCE_S, wait_for
from worker.devstack.tether import Tether


class LocalProcess:
    """A program in a process group of its own, with its output in a file.

    Args:
        name: for messages.
        argv: program and arguments.
        log: file that output is appended to.
        env: variables on top of ours.
        prompt: text in its output that says that it is ready.
        tether: ends it when the test session dies without cleaning up.
        tree: source tree that it runs in; this one by default.
        forked: if it is one of Celery's programs, it is forked from a process that has imported everything.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        prompt: str | None = None,
        tether: Tether | None = None,
        tree: Path = ROOT,
        forked: bool = False,
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._log = log
        self._env = dict(env or {})
        self._prompt = prompt
        self._tether = tether
        self._tree = tree
        self._forked = forked and tree == ROOT
        self._process: subprocess.Popen[bytes] | Forked | None = None
        self._read_from = 0

    @property
    def pid(self) -> int:
        """Id of the process, and of its group."""
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Starts it; `wait_until_ready` says when it works."""
        assert not self.running, f"{self.name} runs already"
        self._read_from = self._log.stat().st_size if self._log.exists() else 0
        env = _inherited() | {"PYTHONUNBUFFERED": "1"} | self._env
        if self._forked and forkable(self._argv):
            self._process = Forked(self._argv, env=env, directory=self._tree, log=self._log)
        else:
            self._process = self._execute(env)
        if self._tether is not None:
            self._tether.hold(self._process.pid)

    def _execute(self, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as output:
            return subprocess.Popen(
                self._argv,
                cwd=self._tree,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def wait_until_ready(self, seconds: float = PATIENCE_S) -> None:
        """Waits for the prompt.

        Raises:
            AssertionError: it ended, or said nothing in time; its output is in the message.
        """
        prompt = self._prompt
        if prompt is not None:
            wait_for(lambda: prompt in self.logs() or not self.running, seconds=seconds, what=f"{self.name} ready")
        assert self.running, f"{self.name} ended with {self.exit_code}:\n{self.logs()}"

    def logs(self) -> str:
        """What it has written since its last start."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(self._read_from)
            return file.read().decode(errors="replace")

    def wait_for_log(self, text: str, *, seconds: float = PATIENCE_S) -> None:
        """Waits until it has written `text`."""
        wait_for(lambda: text in self.logs(), seconds=seconds, what=f"{text!r} in the log of {self.name}")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process alone, not to its children."""
        os.kill(self.pid, number)

    def signal_group(self, number: signal.Signals) -> None:
        """Sends a signal to the process and all of its children."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to the whole group, as when a machine loses its power."""
        self.signal_group(signal.SIGKILL)
        self.wait()

    def wait(self, seconds: float = PATIENCE_S) -> int:
        """Waits for its end.

        Returns:
            The exit code.
        """
        assert self._process is not None, f"{self.name} was not started"
        code = self._process.wait(seconds)
        if self._tether is not None:
            self._tether.let_go(self._process.pid)
        return code

    def stop(self, seconds: float = 15.0) -> None:
        """SIGTERM, then SIGKILL to what is left of its group; harmless when it is down."""
        if self._process is None:
            return
        if self.running:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        self.kill()

    def restart(self) -> None:
        """Stops it, starts it and waits until it is ready."""
        self.stop()
        self.start()
        self.wait_until_ready()


def _inherited() -> dict[str, str]:
    """Our environment without what importing the application has put into it: a shell's would not have that."""
    return {name: value for name, value in os.environ.items() if name != "REMAP_SIGTERM"}
