"""Random campaigns: a seed decides which faults strike when, while the books move; a failing script is made shorter.

A script is a list of events, each with the seconds to wait before it. It is told over the world's story, everything is
left to settle, and the tables must equal those of the same story without any fault.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from tests.support.faults_processes import go_on, kill, kill_children, stop
from tests.support.faults_rows import RIGHTLY
from tests.support.faults_world import World


@dataclass(frozen=True, slots=True)
class Event:
    """One step of a script.

    Attributes:
        wait_s: since the event before.
        what: a key of `FAULTS`, or `moves_on`.
        choice: in [0, 1): whom it strikes.
        seconds: how long it lasts, where that means anything.
    """

    wait_s: float
    what: str
    choice: float
    seconds: float

    def __str__(self) -> str:
        return f"+{self.wait_s:.2f}s {self.what} ({self.choice:.2f}, {self.seconds:.2f}s)"


def _lasting(block: Callable[[World, Event], AbstractContextManager[object]]) -> Callable[[World, Event], None]:
    def strike(world: World, event: Event) -> None:
        with block(world, event):
            time.sleep(event.seconds)

    return strike


def _one_of(logins: Sequence[str], event: Event) -> str:
    return logins[int(event.choice * len(logins))]


def _kill_worker(world: World, event: Event) -> None:
    worker = world.workers[int(event.choice * len(world.workers))]
    if worker.process.running:
        kill(worker)


def _stop_worker(world: World, event: Event) -> None:
    worker = world.workers[int(event.choice * len(world.workers))]
    if worker.process.running:
        stop(worker)
        time.sleep(event.seconds)
        go_on(worker)


def _kill_beat(world: World, event: Event) -> None:
    if world.beat.running:
        kill(world.beat)


def _kill_children(world: World, event: Event) -> None:
    kill_children(world)


def _terminate_backends(world: World, event: Event) -> None:
    world.servers.terminate_backends()


def _send_again(world: World, event: Event) -> None:
    ids = [str(id_) for id_ in world.ids.values()]
    world.send("worker.tasks.tokens.refresh_providers", [ids])
    world.send("worker.tasks.accounts.sync_providers", [ids])


def _race(world: World, event: Event) -> None:
    """Refreshes take their time, and while they do, every message comes again, and again."""
    world.sandbox.inject("delay", kind="refresh", latency_ms=1000 * event.seconds, times=len(world.refreshed))
    world.hours_pass(*world.ids)
    for _ in range(3):
        _send_again(world, event)
        time.sleep(event.seconds / 3)


def _relink(world: World, event: Event) -> None:
    world.relink(_one_of([*world.refreshed, *world.synced], event))


def _silence_postgres(world: World, event: Event) -> None:
    """Longer than a lease at most: nobody can then tell the network from a server that has died."""
    with world.servers.postgres_network.stalled():
        time.sleep(4 * event.seconds)


def _inject(do: str, **fault: object) -> Callable[[World, Event], None]:
    def strike(world: World, event: Event) -> None:
        world.sandbox.inject(do, **{"login": _one_of(world.refreshed, event)} | fault)

    return strike


FAULTS: dict[str, Callable[[World, Event], None]] = {
    "kill a worker": _kill_worker,
    "stop a worker": _stop_worker,
    "kill pool processes": _kill_children,
    "kill beat": _kill_beat,
    "kill Redis": _lasting(lambda world, event: world.servers.redis_down()),
    "empty Redis": _lasting(lambda world, event: world.servers.redis_emptied()),
    "stop Redis": _lasting(lambda world, event: world.servers.redis_stopped()),
    "fill Redis": _lasting(lambda world, event: world.servers.redis_full()),
    "cut off Redis": _lasting(lambda world, event: world.servers.redis_network.refusing()),
    "kill Postgres": _lasting(lambda world, event: world.servers.postgres_down()),
    "cut off Postgres": _lasting(lambda world, event: world.servers.postgres_network.refusing()),
    "terminate connections": _terminate_backends,
    "send all again": _send_again,
    "race": _race,
    "cut a refresh": _inject("cut", kind="refresh"),
    "slow refreshes": _inject("delay", kind="refresh", latency_ms=700.0, times=3),
    "refuse a refresh": _inject("answer", kind="refresh", status=503, body="down"),
    "gateway's error before": _inject("answer", kind="refresh", status=502, body="down"),
    "gateway's error after": _inject("answer", kind="refresh", status=504, body="down", when="after"),
    "limit a refresh": _inject("rate_limit", kind="refresh", retry_after="2"),
    "cut a page": _inject("cut", kind="data", login="*"),
    "hang a page": _inject("hang", kind="data", login="*"),
    "refuse pages of an account": _inject(
        "answer",
        kind="data",
        path="*/accounts/[0-9A-F]*",  # of one account; the list of accounts has another name
        status=403,
        headers={"content-type": "text/html"},
        body="<html><title>Access denied</title></html>",
        times=3,
    ),
    "link another login": _relink,
    "silence Postgres": _silence_postgres,
    "vanish Postgres": _lasting(lambda world, event: world.servers.postgres_network.vanished()),
    "refuse pages": _inject("answer", kind="data", login="*", status=500, body="oops", times=3),
}

_SPARE_LOGINS = 3
"""Of each provider, for as many new links."""

_LASTING = {
    *("stop a worker", "race", "kill Redis", "empty Redis", "stop Redis", "fill Redis", "cut off Redis"),
    *("kill Postgres", "cut off Postgres", "silence Postgres", "vanish Postgres"),
}
"""Faults that take their seconds; the others strike and are over, or lie in wait."""


def make_script(seed: int, seconds: float) -> list[Event]:
    """Events for about so many seconds; the same for the same seed."""
    chance = random.Random(seed)
    script = [Event(0.0, "moves_on", 0.0, 0.0)]
    passed = 0.0
    while passed < seconds:
        what = "moves_on" if chance.random() < 0.25 else chance.choice(list(FAULTS))
        event = Event(round(chance.uniform(0.0, 1.5), 2), what, chance.random(), round(chance.uniform(0.1, 2.0), 2))
        script.append(event)
        passed += event.wait_s + (event.seconds if what in _LASTING else 0.0)
    return script


def tell(world: World, script: Sequence[Event]) -> str | None:
    """Tells the story with these faults.

    Returns:
        What was broken; None when all promises held.
    """
    world.begin(spare=_SPARE_LOGINS)
    try:
        for event in script:
            time.sleep(event.wait_s)
            if event.what == "moves_on":
                world.moves_on()
            else:
                FAULTS[event.what](world, event)
        world.sandbox.clear_faults()
        world.recovers("a random campaign", hurry=True, lost=(RIGHTLY,))
        world.assert_nothing_was_lost(lost=world.rightly_lost())
    except AssertionError as error:
        return str(error)
    return None


def shrink(world: World, script: Sequence[Event], *, seconds: float, say: Callable[[str], None]) -> list[Event]:
    """A shorter script that still fails: drops halves, quarters, … single events for at most so many seconds."""
    deadline = time.monotonic() + seconds
    shortest = list(script)
    size = max(1, len(shortest) // 2)
    while time.monotonic() < deadline:
        for start in range(0, len(shortest), size):
            shorter = shortest[:start] + shortest[start + size :]
            if shorter and time.monotonic() < deadline and tell(world, shorter) is not None:
                say(f"still fails with {len(shorter)} of {len(script)} events")
                shortest = shorter
                break
        else:
            if size == 1:
                break
            size = max(1, size // 2)
    return shortest
