"""Runs the processes of `dashtam run`, links the demo user's logins, and waits for a cycle or draws the live table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape

from worker.cli.exits import Interrupted
from worker.cli.run import report, watch
from worker.cli.run.demo import Demo, keep_api_key
from worker.cli.run.environment import Demonstration
from worker.cli.run.lookout import Lookout
from worker.cli.run.processes import FLOWER, SANDBOX, WEB, specs
from worker.cli.run.sandbox import Progress, answers
from worker.devstack import ProcessState, ProcessStatus, Supervisor
from worker.errors import Unavailable
from worker.runtime import Runtime
from worker.sandbox.control import SandboxControl, SandboxTrouble
from worker.settings import get_settings
from worker.tasks import send

_POLL_SECONDS = 0.1
_LOOK_SECONDS = 0.4
_DRAW_SECONDS = 1.0
_LINK_AGAIN_SECONDS = 1.0
_RESTARTS_MAX = 2


class Cycle:
    """The running demonstration: its supervised processes and the demo user.

    Args:
        supervisor: the supervisor of the processes.
        demo: the demo user's providers.
        sandbox: the client for the sandbox's admin API.
        demonstration: the addresses and files of this `dashtam run`.
    """

    def __init__(
        self, supervisor: Supervisor, demo: Demo, sandbox: SandboxControl, demonstration: Demonstration
    ) -> None:
        self._supervisor = supervisor
        self._demo = demo
        self._sandbox = sandbox
        self._demonstration = demonstration
        self._linked_at_restart = -1
        self._link_at = 0.0

    @property
    def linked(self) -> bool:
        """Whether the demo user's providers are linked since the sandbox was last started."""
        return self._linked_at_restart == self._sandbox_restarts()

    def poll(self) -> bool:
        """Does the work that is due now. Returns False when all processes have stopped."""
        going = self._supervisor.poll()
        if going and not self.linked and self._sandbox.is_up():
            self._link()
        return going

    def _link(self) -> None:
        """Links all logins. If Postgres cannot be reached, tries again soon; the table shows the trouble."""
        if time.monotonic() < self._link_at:
            return
        restarts = self._sandbox_restarts()
        try:
            self._demo.link()
        except Unavailable:
            self._link_at = time.monotonic() + _LINK_AGAIN_SECONDS
            return
        self._linked_at_restart = restarts

    def once(self, *, began: float, deadline: float) -> dict[str, Any]:
        """Waits until one whole cycle was done or the deadline has passed, and returns the summary.

        Raises:
            Interrupted: a signal ended the command.
        """
        look_at = 0.0
        while self.poll():
            now = time.monotonic()
            if now >= look_at and self.linked:
                look_at = now + _LOOK_SECONDS
                whole = not any(story.missing() for story in self._demo.stories(counts=False)) and not self._troubles()
                if whole or now >= deadline:
                    result = self._summary(time.monotonic() - began)
                    if result["ok"] or now >= deadline:
                        return result
            elif now >= deadline:
                return self._summary(time.monotonic() - began)
            time.sleep(_POLL_SECONDS)
        raise Interrupted("stopped before the cycle was complete; committed rows are kept")

    def watch(self, console: Console) -> None:
        """Draws the live table until a signal ends it."""
        draw_at = 0.0
        with (
            Lookout(self._demo, lambda: Runtime(get_settings()), send) as lookout,
            Live(console=console, auto_refresh=False, transient=False) as live,
        ):
            while self.poll():
                now = time.monotonic()
                if now >= draw_at:
                    draw_at = now + _DRAW_SECONDS
                    seen = lookout.seen if self.linked else replace(lookout.seen, stories=())
                    drawn = watch.screen(
                        self._demonstration,
                        seen,
                        self._supervisor.status(),
                        width=console.width,
                        with_key=console.is_terminal,
                    )
                    live.update(drawn, refresh=console.is_terminal)
                # Saved at every step, because the next sandbox's books must contain everything that a sync has stored.
                self._keep_progress()
                time.sleep(_POLL_SECONDS)

    def _keep_progress(self) -> None:
        if self.linked:
            with suppress(SandboxTrouble):
                self._demo.keep_progress()

    def _summary(self, seconds: float) -> dict[str, Any]:
        restarts = {process.name: process.restarts for process in self._supervisor.status() if process.restarts}
        troubles = self._troubles()
        if not self.linked:
            troubles.insert(0, "the demo user's providers could not be linked: the sandbox did not come up")
            return report.summary([], seconds=seconds, restarts=restarts, troubles=troubles)
        return report.summary(self._demo.stories(counts=True), seconds=seconds, restarts=restarts, troubles=troubles)

    def _troubles(self) -> list[str]:
        """Sentences about processes that are down, keep ending or do not answer."""
        down = {process.name: process for process in self._supervisor.status() if keeps_ending(process)}
        log = self._demonstration.home / "log"
        troubles = [
            f"{name} keeps ending (exit code {process.last_exit}, restarted {process.restarts} times); "
            f"see the end of {log / name}.log"
            for name, process in down.items()
        ]
        where = self._demonstration
        for process, name, url, path in (
            (FLOWER, "Flower", where.flower_url, "/healthcheck"),
            (WEB, "The HTTP API", where.web_url, "/readyz"),
        ):
            if process not in down and not answers(f"{url}{path}"):
                troubles.append(f"{name} does not answer at {url}; see {log / process}.log")
        return troubles

    def _sandbox_restarts(self) -> int:
        return next(process.restarts for process in self._supervisor.status() if process.name == SANDBOX)


def keeps_ending(process: ProcessStatus) -> bool:
    """Whether a process is down, or was started again more than once."""
    return process.state is ProcessState.BACKOFF or process.restarts >= _RESTARTS_MAX


@contextmanager
def started(demonstration: Demonstration, *, access_seconds: int, live: bool, console: Console) -> Iterator[Cycle]:
    """Starts the processes and yields the cycle; at the end of the block, the processes are stopped."""
    sandbox = SandboxControl(demonstration.sandbox_url, demonstration.sandbox_token)
    runtime = Runtime(get_settings())
    keep_api_key(runtime, demonstration.api_key_file)
    demo = Demo(runtime, sandbox, Progress(demonstration.home / "sandbox.json"))
    cycle: Cycle
    supervisor = Supervisor(
        specs(demonstration, access_seconds=access_seconds, live=live, linked=lambda: cycle.linked),
        log_dir=demonstration.home / "log",
        on_event=lambda event: console.print(f"[dim]{escape(event)}[/]"),
    )
    cycle = Cycle(supervisor, demo, sandbox, demonstration)
    try:
        with supervisor, supervisor.signals():
            yield cycle
    finally:
        runtime.close()
