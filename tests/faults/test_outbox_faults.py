"""Hooks that we send, while everything that takes part in it is killed: no event is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import msgspec
import pytest
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from standardwebhooks import Webhook

from tests.support.environment import ROOT
from tests.support.faults_world import World
from tests.support.serving import serving
from tests.support.waiting import wait_for
from worker.crud.outbox import events
from worker.devstack.processes import free_port

IN_FLIGHT = 8 * 2
"""So many deliveries the two workers can have in flight when something is killed."""


class Receiver:
    """A receiver that can be killed. `received` counts the answers 2xx by event, `dropped` those cut off before."""

    def __init__(self) -> None:
        self.port = free_port()
        self.secret = ""
        self.drops = 0
        self.received: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self._counting = threading.Lock()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Answers until the block ends; after it, connections are refused."""
        server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        with serving(server):
            yield

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                Webhook(outer.secret).verify(body, dict(self.headers))
                if not outer.takes(self.headers["webhook-id"]):
                    self.close_connection = True  # the sender cannot know whether it was received
                    return
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Silent."""

        return Handler

    def takes(self, event_id: str) -> bool:
        with self._counting:
            if self.drops > 0:
                self.drops -= 1
                self.dropped[event_id] += 1
                return False
            self.received[event_id] += 1
            return True


def _add(world: World, receiver: Receiver) -> UUID:
    url = f"http://127.0.0.1:{receiver.port}/"
    added = subprocess.run(
        [sys.executable, "-m", "worker.cli", "hooks", "add", url, "--event", "integration.recovered", "--json"],
        cwd=ROOT,
        env=os.environ | world.environment,
        capture_output=True,
        check=True,
    )
    told: dict[str, Any] = msgspec.json.decode(added.stdout)
    receiver.secret = told["secret"]
    return UUID(told["hook"]["id"])


def _tell(world: World, count: int) -> None:
    """Events, each in a transaction of its own; some of them may be lost with the server, and then are no events."""
    for _ in range(count):
        with suppress(SQLAlchemyError), Session(world.servers.engine) as session, session.begin():
            events.integration_recovered(session, provider_key="schwab")


def _all_received(world: World) -> bool:
    """Whether nothing waits any more. What is to be tried again later is tried now."""
    try:
        with world.servers.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE hook_subscriptions SET wait_until = NULL")
            connection.exec_driver_sql(
                # No claim lasts so long: these are to be tried again.
                "UPDATE outbox SET due_at = now() WHERE due_at > now() + interval '13 seconds'"
            )
        return world.query("SELECT count(*) FROM outbox WHERE sent_at IS NULL") == [(0,)]
    except SQLAlchemyError:
        return False


@pytest.mark.long
def test_no_event_is_lost_whatever_is_killed_and_repeats_have_the_same_id(world: World) -> None:
    receiver = Receiver()
    kills = 0
    with receiver.running():
        _add(world, receiver)
        _tell(world, 20)
        receiver.drops = 3
        wait_for(lambda: receiver.dropped, what="deliveries that were cut off")
        wait_for(lambda: _all_received(world), what="all deliveries", every=0.3)
        assert all(count == 1 for count in receiver.received.values()), "what was answered is not repeated"

        for kill in (world.workers[0].kill, world.servers.kill_postgres, world.servers.kill_redis):
            _tell(world, 20)
            kill()
            kills += 1
            world.servers.start()
            world.workers_of_the_session()
            _tell(world, 20)
            wait_for(lambda: _all_received(world), what=f"all deliveries after kill {kills}", every=0.3)

    _tell(world, 20)
    wait_for(
        lambda: world.query("SELECT count(*) FROM hook_subscriptions WHERE failures > 0") == [(1,)],
        what="deliveries that fail because the receiver is away",
    )
    with receiver.running():
        wait_for(lambda: _all_received(world), what="all deliveries after the receiver's death", every=0.3)

    told = {str(event_id) for (event_id,) in world.query("SELECT event_id FROM outbox")}
    assert set(receiver.received) == told
    repeated = {event_id: count for event_id, count in receiver.received.items() if count > 1}
    assert len(repeated) <= IN_FLIGHT * kills, "only deliveries that a kill has interrupted come twice"
    assert all(count == 2 for count in repeated.values()), repeated
