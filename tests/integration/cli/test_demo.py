"""The demo user of `dashtam run`, with the work done in this process."""

from __future__ import annotations

import io
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.sandbox import SandboxAdmin, SandboxProcess
from worker.cli.demo_logins import LOGINS
from worker.cli.exits import Interrupted
from worker.cli.run import cycle
from worker.cli.run.cycle import Cycle
from worker.cli.run.demo import Demo, keep_api_key
from worker.cli.run.environment import Demonstration
from worker.cli.run.processes import SANDBOX
from worker.cli.run.sandbox import Progress
from worker.devstack import ProcessState, ProcessStatus, Supervisor
from worker.runtime import Runtime
from worker.sandbox.control import SandboxControl, SandboxTrouble
from worker.services.access import keys
from worker.services.refresh import protocol
from worker.services.sync import batch

pytestmark = pytest.mark.deep


@pytest.fixture
def control(sandbox: SandboxAdmin, sandbox_process: SandboxProcess) -> SandboxControl:
    """The sandbox as `dashtam run` uses it."""
    return SandboxControl(sandbox_process.base_url, sandbox_process.admin_token)


@pytest.fixture
def demo(runtime: Runtime, control: SandboxControl, tmp_path: Path) -> Demo:
    """A demo user whose providers are not linked yet."""
    return Demo(runtime, control, Progress(tmp_path / "sandbox.json"))


class _Processes(Supervisor):
    """Stands for the processes; each poll does in this process what they would do, once.

    Attributes:
        polls: how many polls to go on for.
    """

    def __init__(self, runtime: Runtime, demo: Demo, *, polls: int, until: Callable[[], bool] = lambda: False) -> None:
        self._runtime = runtime
        self._demo = demo
        self._until = until
        self.polls = polls
        self.done = False
        self.restarts = 0

    def poll(self) -> bool:
        self.polls -= 1
        ids = list(self._demo.ids.values())
        if ids and not self.done:
            self._runtime.run(protocol.refresh_providers(self._runtime, ids, force=True))
            self._runtime.run(batch.sync_providers(self._runtime, ids))
            self.done = True
        return self.polls >= 0 and not self._until()

    def status(self) -> list[ProcessStatus]:
        return [ProcessStatus(SANDBOX, ProcessState.RUNNING, 1, self.restarts, 1.0, None)]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Addresses at which nobody answers; all others answer, although nothing is started."""
    found: set[str] = set()
    monkeypatch.setattr(cycle, "answers", lambda url: url not in found)
    return found


@pytest.fixture
def demonstration(tmp_path: Path, sandbox_process: SandboxProcess, silent: set[str]) -> Demonstration:
    """Where everything is; nothing of it is started."""
    password = tmp_path / "flower.password"
    password.write_text("made-up-word\n")
    return Demonstration(
        home=tmp_path,
        sandbox_url=sandbox_process.base_url,
        sandbox_token=sandbox_process.admin_token,
        flower_url="http://127.0.0.1:5555",
        flower_user="operator",
        flower_password_file=password,
        variables={},
        env_file=tmp_path / "run.env",
        web_url="http://127.0.0.1:8000",
        api_key_file=tmp_path / "api.key",
    )


def test_a_cycle_is_whole_once_everything_was_refreshed_synced_and_compared(
    runtime: Runtime, demo: Demo, control: SandboxControl, demonstration: Demonstration
) -> None:
    whole = Cycle(_Processes(runtime, demo, polls=1000), demo, control, demonstration)
    now = time.monotonic()

    result = whole.once(began=now, deadline=now + 30)

    assert result["ok"], result["missing"]
    assert [p["refreshed_by_schedule"] for p in result["providers"]] == [1, 1, 0, 0]
    assert all(p["stored"] == p["served"] == p["books"] for p in result["providers"])


def test_a_cycle_that_is_not_whole_by_its_deadline_names_what_is_missing(
    runtime: Runtime, demo: Demo, control: SandboxControl, demonstration: Demonstration
) -> None:
    processes = _Processes(runtime, demo, polls=1000)
    processes.done = True

    result = Cycle(processes, demo, control, demonstration).once(began=0, deadline=time.monotonic() + 0.5)

    assert not result["ok"]
    assert f"{LOGINS[0].alias}: no scheduled task has refreshed its token" in result["missing"]
    assert f"{LOGINS[3].alias}: no scheduled task has synced it" in result["missing"]


def test_a_sandbox_that_does_not_come_up_is_named(
    runtime: Runtime, tmp_path: Path, demonstration: Demonstration
) -> None:
    nobody = SandboxControl("http://127.0.0.1:1", "none")
    demo = Demo(runtime, nobody, Progress(tmp_path / "sandbox.json"))

    result = Cycle(_Processes(runtime, demo, polls=1000), demo, nobody, demonstration).once(began=0, deadline=0)

    assert result["missing"] == ["the demo user's providers could not be linked: the sandbox did not come up"]


def test_a_signal_in_the_middle_of_a_cycle_is_an_interruption(
    runtime: Runtime, demo: Demo, control: SandboxControl, demonstration: Demonstration
) -> None:
    processes = _Processes(runtime, demo, polls=0)

    with pytest.raises(Interrupted):
        Cycle(processes, demo, control, demonstration).once(began=0, deadline=time.monotonic() + 30)


def test_a_sandbox_that_was_started_again_is_linked_again(
    runtime: Runtime, demo: Demo, control: SandboxControl, demonstration: Demonstration
) -> None:
    processes = _Processes(runtime, demo, polls=1000)
    whole = Cycle(processes, demo, control, demonstration)
    whole.poll()
    ids = dict(demo.ids)

    processes.restarts = 1
    assert not whole.linked
    whole.poll()

    assert whole.linked
    assert demo.ids == ids


def test_the_live_table_shows_providers_processes_and_where_flower_is(
    runtime: Runtime, demo: Demo, control: SandboxControl, demonstration: Demonstration
) -> None:
    out = io.StringIO()
    processes = _Processes(runtime, demo, polls=1000, until=lambda: LOGINS[-1].alias in out.getvalue())

    Cycle(processes, demo, control, demonstration).watch(Console(file=out, width=200, force_terminal=True))

    shown = out.getvalue()
    assert all(login.alias in shown for login in LOGINS)
    assert "http://127.0.0.1:5555" in shown
    assert "made-up-word" in shown
    assert "http://127.0.0.1:8000/docs" in shown
    assert "Ctrl-C" in shown


def test_books_that_had_moved_are_moved_again_for_a_new_sandbox(
    runtime: Runtime, demo: Demo, control: SandboxControl, sandbox: SandboxAdmin, tmp_path: Path
) -> None:
    Progress(tmp_path / "sandbox.json").save(3)

    demo.link()

    assert control.steps() == 3
    sandbox.advance(2)
    demo.keep_progress()
    assert Progress(tmp_path / "sandbox.json").steps == 5


def test_a_demonstration_of_another_day_begins_anew(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo.link()
    yesterdays = set(demo.ids.values())
    monkeypatch.setattr("worker.cli.run.sandbox._today", lambda: "2100-01-01")

    demo.link()

    assert yesterdays.isdisjoint(demo.ids.values())


def test_a_sandbox_that_refuses_is_told_apart_from_one_that_is_away(
    control: SandboxControl, sandbox_process: SandboxProcess
) -> None:
    assert control.is_up()
    assert not SandboxControl(sandbox_process.base_url, "wrong").is_up()
    with pytest.raises(SandboxTrouble, match="422: the provider would refuse this: client_id"):
        control.link(LOGINS[0].name, {"client_id": "nobody"})
    with pytest.raises(SandboxTrouble, match="404: no login"):
        control.link("nobody-1", {})
    with pytest.raises(SandboxTrouble, match="did not answer"):
        SandboxControl("http://127.0.0.1:1", "none").link(LOGINS[0].name, {})


def test_key_of_the_http_api_is_kept_while_it_opens_something(runtime: Runtime, tmp_path: Path) -> None:
    path = tmp_path / "api.key"

    keep_api_key(runtime, path)
    first = path.read_text()
    keep_api_key(runtime, path)
    kept = path.read_text()
    runtime.run(keys.revoke(runtime, first.split("_")[1], actor="operator:tests"))
    keep_api_key(runtime, path)

    assert kept == first != path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert runtime.run(keys.authenticate(runtime, path.read_text().strip())).user_id is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:5555/healthcheck", "Flower does not answer at http://127.0.0.1:5555"),
        ("http://127.0.0.1:8000/readyz", "The HTTP API does not answer at http://127.0.0.1:8000"),
    ],
)
def test_a_server_of_the_cycle_that_does_not_answer_is_named(
    runtime: Runtime,
    demo: Demo,
    control: SandboxControl,
    demonstration: Demonstration,
    silent: set[str],
    url: str,
    told: str,
) -> None:
    silent.add(url)

    result = Cycle(_Processes(runtime, demo, polls=1000), demo, control, demonstration).once(began=0, deadline=0)

    assert result["ok"] is False
    assert [what for what in result["missing"] if what.startswith(told)]
