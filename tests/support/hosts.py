"""Hosts: network namespaces that reach the data host over one link and the provider over another.

The tests themselves run in a namespace of their own, which is the data host: `make test-hosts` starts them in it. It
and all others vanish with the processes in them.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.processes import LocalProcess
from worker.devstack.tether import Tether

DATA, PROVIDER = "10.77.0.1", "10.78.0.1"
"""Where hosts reach Postgres and Redis, and the provider. Both are this host."""
_PROGRAMS = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux"}
_FAKE_TIME = ("faketime/libfaketime.so.1", "libfaketime")


def require_namespace() -> None:
    """Fails, and says what to do, unless this process is root in a network namespace of its own."""
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            pytest.fail(f"{program} is missing. Install it (Debian, Ubuntu: apt-get install {package})", pytrace=False)
    if os.geteuid() != 0:
        pytest.fail("these tests make network namespaces, and only root can: sudo make test-hosts", pytrace=False)
    links = subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True, check=True).stdout  # noqa: S607
    if "state DOWN" not in links or links.count("\n") != 1:  # a new namespace has its loopback alone, which is down
        pytest.fail("these tests run in a network namespace of their own: make test-hosts", pytrace=False)


def fake_time(offset_s: float) -> dict[str, str]:
    """Variables under whose rule a program sees a clock that is so far ahead of ours, or behind it."""
    found = next(Path("/usr/lib").glob(f"*/{_FAKE_TIME[0]}"), None)
    if found is None:
        pytest.fail(f"{_FAKE_TIME[1]} is missing. Install it (Debian, Ubuntu: apt-get install {_FAKE_TIME[1]})")
    return {"LD_PRELOAD": str(found), "FAKETIME": f"{offset_s:+g}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def ip(*words: str) -> None:
    """Runs `ip`."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)  # noqa: S607 - from PATH
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


def make_bridges() -> None:
    """The network of the data host: one bridge for its own servers, and one for the provider."""
    ip("link", "set", "lo", "up")
    for name, address in (("data", DATA), ("provider", PROVIDER)):
        ip("link", "add", name, "type", "bridge")
        ip("address", "add", f"{address}/24", "dev", name)
        ip("link", "set", name, "up")


class Host:
    """One host.

    Args:
        name: for example `one`.
        number: the last part of its addresses.
        home: for its files; its DASHTAM_HOME is below.
        tether: ends its processes with the test session.
    """

    def __init__(self, name: str, number: int, home: Path, tether: Tether) -> None:
        self.name = name
        self._home = home
        self._tether = tether
        self._processes: list[LocalProcess] = []
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--", "sh", "-c", "echo made; exec sleep infinity"],  # noqa: S607 - from PATH
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        tether.hold(self._holder.pid)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"made\n"
        self.enter = ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--"]
        for network, bridge in (("10.77", "data"), ("10.78", "provider")):
            here, there = f"{bridge}{number}", f"to-{bridge}"
            ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", str(self._holder.pid))
            ip("link", "set", here, "master", bridge, "up")
            self._run("ip", "address", "add", f"{network}.0.{number}/24", "dev", there)
            self._run("ip", "link", "set", there, "up")
        self._run("ip", "link", "set", "lo", "up")

    @property
    def dashtam_home(self) -> Path:
        return self._home / f"home-{self.name}"

    def process(self, name: str, argv: list[str], *, env: Mapping[str, str], prompt: str | None = None) -> LocalProcess:
        """A program on this host, not started yet."""
        log = self._home / f"{name}.log"
        process = LocalProcess(
            name, [*self.enter, *argv], log=log, env=self.variables(env), prompt=prompt, tether=self._tether
        )
        self._processes.append(process)
        return process

    def takes(self, process: LocalProcess) -> None:
        """Makes a process that is not started yet one of this host."""
        process._argv = [*self.enter, *process._argv]
        process._env = self.variables(process._env)
        self._processes.append(process)

    def variables(self, env: Mapping[str, str]) -> dict[str, str]:
        """What a program of this host sees."""
        return {**env, "DASHTAM_HOME": str(self.dashtam_home)}

    def spooled(self) -> list[Path]:
        """Answers that wait on the disk of this host."""
        return list((self.dashtam_home / "spool").glob("*.json"))

    def cut_link(self) -> None:
        """It no longer reaches Postgres and Redis; packets are lost, and nobody is told."""
        self._run("ip", "link", "set", "to-data", "down")

    def mend_link(self) -> None:
        self._run("ip", "link", "set", "to-data", "up")

    def vanish(self) -> None:
        """All its links are cut and all its processes stand still, as when a machine is suspended."""
        self._run("ip", "link", "set", "to-data", "down")
        self._run("ip", "link", "set", "to-provider", "down")
        self._signal(signal.SIGSTOP)

    def come_back(self) -> None:
        """It goes on where it stood still."""
        self._run("ip", "link", "set", "to-data", "up")
        self._run("ip", "link", "set", "to-provider", "up")
        self._signal(signal.SIGCONT)

    def end(self) -> None:
        """Ends all its processes, and with them the host."""
        for process in self._processes:
            if process.running:
                process.signal_group(signal.SIGCONT)
                process.kill()
        os.killpg(self._holder.pid, signal.SIGKILL)
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes:
            if process.running:
                process.signal_group(number)

    def _run(self, *words: str) -> None:
        done = subprocess.run([*self.enter, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(words)} on {self.name}: {done.stderr}"
