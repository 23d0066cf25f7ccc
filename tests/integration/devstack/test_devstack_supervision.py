"""The supervisor with real processes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.devstack import DevstackError, ProcessSpec, ProcessState, Supervisor, child, processes

PROJECT = Path(__file__).parents[3]


class Patience:
    """A clock that can be moved on, so that no test waits for a backoff."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


def shell(name: str, script: str, **more: object) -> ProcessSpec:
    return ProcessSpec(name, ["/bin/sh", "-c", script], **more)  # type: ignore[arg-type]


def sleeper(name: str, **more: object) -> ProcessSpec:
    return ProcessSpec(name, ["/bin/sleep", "300"], **more)  # type: ignore[arg-type]


def poll_until(supervisor: Supervisor, condition: Callable[[], bool], seconds: float = 120) -> None:
    def polled() -> bool:
        supervisor.poll()
        return condition()

    assert processes.wait_until(polled, seconds), f"it did not come about: {supervisor.status()}"


def states(supervisor: Supervisor) -> dict[str, ProcessState]:
    return {status.name: status.state for status in supervisor.status()}


def pids(supervisor: Supervisor) -> dict[str, int]:
    return {status.name: status.pid for status in supervisor.status() if status.pid is not None}


def all_run(supervisor: Supervisor) -> bool:
    return set(states(supervisor).values()) == {ProcessState.RUNNING}


def group_is_empty(group: int) -> bool:
    """Whether no live process is left in a process group."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, its_group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its_group) == group and state not in "ZX":
            return False
    return True


@pytest.mark.deep
def test_processes_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    events: list[str] = []
    with Supervisor(
        [sleeper("sandbox"), sleeper("refresh", after=["sandbox"]), sleeper("beat", after=["refresh"])],
        log_dir=tmp_path,
        on_event=lambda event: events.append(event.split(" (")[0]),
    ) as supervisor:
        poll_until(supervisor, lambda: all_run(supervisor))
        running = pids(supervisor)

    assert events == [
        *("sandbox started", "refresh started", "beat started"),
        *("beat stopped", "refresh stopped", "sandbox stopped"),
    ]
    assert all(processes.identity(pid) is None for pid in running.values())
    assert set(states(supervisor).values()) == {ProcessState.STOPPED}


@pytest.mark.deep
def test_a_process_waits_until_the_one_before_it_is_ready(tmp_path: Path) -> None:
    ready: list[bool] = []
    with Supervisor(
        [sleeper("sandbox", ready=lambda: bool(ready)), sleeper("refresh", after=["sandbox"])], log_dir=tmp_path
    ) as supervisor:
        for _ in range(3):
            supervisor.poll()
        before = states(supervisor)

        ready.append(True)
        poll_until(supervisor, lambda: all_run(supervisor))

    assert before == {"sandbox": ProcessState.STARTING, "refresh": ProcessState.WAITING}


@pytest.mark.deep
def test_killed_process_is_started_again_without_its_orphans(tmp_path: Path) -> None:
    clock = Patience()
    with Supervisor([shell("worker", "sleep 300 & echo $!; wait")], log_dir=tmp_path, clock=clock) as supervisor:
        log = tmp_path / "worker.log"
        poll_until(supervisor, lambda: log.exists() and log.read_text().endswith("\n"))
        first = pids(supervisor)["worker"]
        pool_child = int(log.read_text())

        os.kill(first, signal.SIGKILL)
        poll_until(supervisor, lambda: states(supervisor)["worker"] is ProcessState.BACKOFF)
        clock.skipped += 1.0
        poll_until(supervisor, lambda: all_run(supervisor))

        (status,) = supervisor.status()
        assert status.pid not in (None, first)
        assert (status.restarts, status.last_exit) == (1, -signal.SIGKILL)
        poll_until(supervisor, lambda: processes.identity(pool_child) is None)


@pytest.mark.deep
def test_it_waits_before_a_restart(tmp_path: Path) -> None:
    clock = Patience()
    with Supervisor([shell("worker", "exit 4")], log_dir=tmp_path, clock=clock) as supervisor:
        poll_until(supervisor, lambda: states(supervisor)["worker"] is ProcessState.BACKOFF)
        clock.skipped += 0.5
        supervisor.poll()

        (status,) = supervisor.status()

    assert (status.state, status.restarts, status.last_exit) == (ProcessState.BACKOFF, 0, 4)


@pytest.mark.deep
def test_process_that_never_comes_up_fails_the_whole_with_its_last_lines(tmp_path: Path) -> None:
    clock = Patience()
    supervisor = Supervisor(
        [sleeper("sandbox"), shell("worker", "echo no module named tasks; exit 1")], log_dir=tmp_path, clock=clock
    )

    def run_to_the_end() -> None:
        while supervisor.poll():
            if states(supervisor)["worker"] is ProcessState.BACKOFF:
                clock.skipped += child.BACKOFF_MAX_SECONDS

    with supervisor:
        supervisor.poll()
        sandbox = pids(supervisor)["sandbox"]
        with pytest.raises(DevstackError) as caught:
            run_to_the_end()

    message = str(caught.value)
    assert message.startswith("worker ended 5 times within 10 s of its start (exit code 1)")
    assert "no module named tasks" in message
    assert processes.identity(sandbox) is None


def test_program_that_does_not_exist_fails_the_whole_at_once(tmp_path: Path) -> None:
    with (
        Supervisor([ProcessSpec("worker", [str(tmp_path / "none")])], log_dir=tmp_path) as supervisor,
        pytest.raises(DevstackError, match=r"worker: cannot run .*No such file"),
    ):
        supervisor.poll()


@pytest.mark.deep
def test_process_that_ignores_the_stop_signal_is_killed_with_its_group(tmp_path: Path) -> None:
    events: list[str] = []
    clock = Patience()
    spec = shell("stubborn", "trap '' TERM; echo deaf; while :; do sleep 300; done", grace_s=10.0)
    with Supervisor([spec], log_dir=tmp_path, on_event=events.append, clock=clock) as supervisor:
        poll_until(supervisor, lambda: (tmp_path / "stubborn.log").read_text() == "deaf\n")
        group = pids(supervisor)["stubborn"]
        supervisor.request_stop()
        supervisor.poll()
        before_grace = states(supervisor)["stubborn"]
        clock.skipped += 10.1
        poll_until(supervisor, lambda: not pids(supervisor))

    assert before_grace is ProcessState.STOPPING
    assert events[-2:] == ["stubborn is killed", "stubborn stopped"]
    assert processes.wait_until(lambda: group_is_empty(group), 120)


@pytest.mark.deep
def test_processes_get_their_own_stop_signal_and_environment(tmp_path: Path) -> None:
    # A shell whose starter ignores SIGQUIT, as one in the background does, could not catch that.
    script = "trap 'echo quit; exit 0' USR1; echo $GREETING; while :; do sleep 0.01; done"
    spec = shell("worker", script, stop_signal=signal.SIGUSR1, env={"GREETING": "hello"})
    log = tmp_path / "worker.log"
    with Supervisor([spec], log_dir=tmp_path) as supervisor:
        poll_until(supervisor, lambda: log.exists() and log.read_text() == "hello\n")

    assert log.read_text() == "hello\nquit\n"


def test_second_request_to_stop_hurries(tmp_path: Path) -> None:
    spec = shell("stubborn", "trap '' TERM; echo deaf; while :; do sleep 300; done", grace_s=300.0)
    with Supervisor([sleeper("sandbox"), spec], log_dir=tmp_path) as supervisor:
        poll_until(supervisor, lambda: (tmp_path / "stubborn.log").read_text() == "deaf\n")
        supervisor.request_stop()
        supervisor.poll()

        supervisor.request_stop()
        poll_until(supervisor, lambda: not pids(supervisor))

    assert not supervisor.poll()


def test_log_lines_are_shown_with_the_process_name(tmp_path: Path) -> None:
    echo = io.StringIO()
    with Supervisor([shell("beat", "echo one; echo two; sleep 300")], log_dir=tmp_path, echo=echo) as supervisor:
        poll_until(supervisor, lambda: echo.getvalue().count("\n") == 2)

    assert echo.getvalue() == "beat | one\nbeat | two\n"


@pytest.mark.deep
def test_log_that_grew_too_long_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LOG_BYTES_MAX", 10)
    with Supervisor([shell("beat", "echo a line of some length; sleep 300")], log_dir=tmp_path) as supervisor:
        poll_until(supervisor, lambda: (tmp_path / "beat.log.1").exists())

    assert (tmp_path / "beat.log").read_text() == ""
    assert (tmp_path / "beat.log.1").read_text() == "a line of some length\n"


def supervise(log_dir: Path) -> subprocess.Popen[str]:
    """A supervisor in a process of its own, which prints the pid of the one process that it runs."""
    script = (
        "import sys; from pathlib import Path; from worker.devstack import ProcessSpec, Supervisor\n"
        "Supervisor([ProcessSpec('w', ['/bin/sh', '-c', 'sleep 300 & echo $$; wait'])],\n"
        "    log_dir=Path(sys.argv[1]), echo=sys.stdout).run()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, str(log_dir)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )


def test_run_ends_at_a_signal_and_puts_the_handlers_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    supervisor = Supervisor(
        [sleeper("beat", ready=lambda: signal.raise_signal(signal.SIGINT) is None)], log_dir=tmp_path
    )

    supervisor.run()

    assert states(supervisor) == {"beat": ProcessState.STOPPED}
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.deep
def test_ctrl_c_while_stopping_hurries(tmp_path: Path) -> None:
    pressed: list[bool] = []

    def impatient() -> float:
        if supervisor_stops and not pressed:
            pressed.append(True)
            raise KeyboardInterrupt
        return time.monotonic()

    supervisor_stops: list[bool] = []
    spec = shell("stubborn", "trap '' TERM; echo deaf; while :; do sleep 300; done", grace_s=300.0)
    supervisor = Supervisor([spec], log_dir=tmp_path, clock=impatient)
    poll_until(supervisor, lambda: (tmp_path / "stubborn.log").read_text() == "deaf\n")

    supervisor_stops.append(True)
    supervisor.stop()

    assert pressed == [True]
    assert not pids(supervisor)


@pytest.mark.deep
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_stops_everything_and_ends_well(tmp_path: Path, number: signal.Signals) -> None:
    with supervise(tmp_path) as runner:
        assert runner.stdout is not None
        group = int(runner.stdout.readline().removeprefix("w | "))

        runner.send_signal(number)

        assert runner.wait(120) == 0
    assert processes.wait_until(lambda: group_is_empty(group), 120)


@pytest.mark.deep
def test_processes_of_a_killed_supervisor_are_ended(tmp_path: Path) -> None:
    with supervise(tmp_path) as runner:
        assert runner.stdout is not None
        group = int(runner.stdout.readline().removeprefix("w | "))

        runner.kill()

    assert processes.wait_until(lambda: group_is_empty(group), 120)
