"""Subscriptions, a receiver that does what a test says, and words for what is in the outbox."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from worker.integrations.receivers import Receivers, Reply
from worker.models.outbox import SubscriptionRow
from worker.runtime import Runtime
from worker.services.outbox import sending, subscriptions


@dataclass
class Posted:
    """One request to a receiver."""

    url: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        """The body, read."""
        read: dict[str, Any] = json.loads(self.body)
        return read


Answer = Callable[[Posted], Awaitable[Reply]]


async def _received(_: Posted) -> Reply:
    return Reply(204, None)


@dataclass
class Net:
    """Takes the place of the network: answers as tests say, by address."""

    posted: list[Posted] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)

    async def post(self, url: str, *, headers: dict[str, str], body: bytes) -> Reply:
        posted = Posted(url, headers, body)
        self.posted.append(posted)
        await asyncio.sleep(0)
        return await self.answers.get(url, _received)(posted)

    def answer(self, url: str, status: int, **values: Any) -> None:
        """Has this receiver answer so from now on."""

        async def answer(_: Posted) -> Reply:
            return Reply(status, values.get("pause"))

        self.answers[url] = answer

    def ids(self, url: str) -> list[str]:
        """The ids that were sent to this address, in their order."""
        return [posted.headers["webhook-id"] for posted in self.posted if posted.url == url]


async def _public(host: str, port: int) -> list[str]:
    return ["93.184.215.14"]


@dataclass
class Outbox:
    """A runtime's outbox."""

    runtime: Runtime
    net: Net = field(default_factory=Net)

    def add(self, url: str = "https://app.example.org/hooks", *events: str, user_id: UUID | None = None) -> Any:
        """Adds a hook; its row and secret."""
        return self.runtime.run(
            subscriptions.add(
                self.runtime,
                url=url,
                events=events,
                user_id=user_id,
                actor="operator:test",
                receivers=Receivers(look_up=_public),
            )
        )

    def send(self, *, settled: bool = True, **options: Any) -> int:
        """Sends what is due.

        `settled` sends it even if an older transaction is open at this server: other tests have such ones.
        """
        if settled:
            self.execute("UPDATE outbox SET xid = 0")
        return self.runtime.run(sending.send_due(self.runtime, post=self.net, **options))

    def row(self, hook: SubscriptionRow) -> SubscriptionRow:
        """The hook as it is now."""
        return self.runtime.run(subscriptions.get(self.runtime, hook.id))

    def rows(self, columns: str = "type, data") -> list[tuple[Any, ...]]:
        """All deliveries, oldest first."""
        query = f"SELECT {columns} FROM outbox ORDER BY created_at, event_id"  # noqa: S608
        with self.runtime.transaction() as session:
            return [tuple(row) for row in session.execute(text(query))]

    def types(self) -> list[str]:
        """The events of all deliveries, oldest first."""
        return [type_ for (type_,) in self.rows("type")]

    def execute(self, statement: str, **values: Any) -> None:
        """Changes the tables."""
        with self.runtime.transaction() as session:
            session.execute(text(statement), values)

    def make_due(self) -> None:
        """Time passes: everything that waits is due, and no hook is paused any more."""
        self.execute("UPDATE outbox SET due_at = now() WHERE due_at IS NOT NULL")
        self.execute("UPDATE hook_subscriptions SET wait_until = NULL")


@pytest.fixture
def outbox(runtime: Runtime) -> Outbox:
    """The outbox of the test's runtime."""
    return Outbox(runtime)
