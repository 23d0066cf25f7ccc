"""Deliveries: signed, tried again, given up, replayed; one receiver never waits for another."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from standardwebhooks import Webhook

from tests.integration.outbox.conftest import Outbox, Posted
from worker.crud.outbox import deliveries, events
from worker.errors import Refused, Unavailable, Undelivered
from worker.integrations.receivers import Reply
from worker.services.outbox import sending, subscriptions

URL, OTHER = "https://app.example.org/hooks", "https://other.example.org/hooks"


def tell(outbox: Outbox, count: int = 1) -> None:
    """Events of an integration, which need no login."""
    with outbox.runtime.transaction() as session:
        for _ in range(count):
            events.integration_recovered(session, provider_key="schwab")


def test_delivery_has_a_signature_that_the_specification_s_own_library_accepts(outbox: Outbox) -> None:
    made = outbox.add(URL)
    tell(outbox)

    assert outbox.send() == 1

    (posted,) = outbox.net.posted
    assert Webhook(made.secret).verify(posted.body, posted.headers) == posted.event
    assert posted.event["type"] == "integration.recovered"
    assert posted.event["data"] == {"provider_key": "schwab"}
    assert datetime.fromisoformat(posted.event["timestamp"]).tzinfo is not None
    assert len(posted.body) < 20_000
    assert outbox.send() == 0, "what was received is not sent again"


def test_both_secrets_sign_for_a_while_after_a_rotation(outbox: Outbox) -> None:
    first = outbox.add(URL)
    second = outbox.runtime.run(subscriptions.rotate(outbox.runtime, first.row.id, actor="operator:test"))
    tell(outbox)
    outbox.send()
    for secret in (first.secret, second.secret):
        Webhook(secret).verify(outbox.net.posted[-1].body, outbox.net.posted[-1].headers)

    outbox.execute("UPDATE hook_subscriptions SET old_secret_until = now()")
    tell(outbox)
    outbox.send()

    Webhook(second.secret).verify(outbox.net.posted[-1].body, outbox.net.posted[-1].headers)
    assert len(outbox.net.posted[-1].headers["webhook-signature"].split(" ")) == 1


@pytest.mark.deep
def test_failed_delivery_is_tried_again_under_its_id_and_parked_after_three_days(outbox: Outbox) -> None:
    hook = outbox.add(URL).row
    outbox.net.answer(URL, 500)
    tell(outbox)
    waits = []

    for _ in range(10):
        outbox.send()
        waits += [due_at - datetime.now(UTC) for (due_at,) in outbox.rows("due_at") if due_at]
        outbox.make_due()

    assert len(outbox.net.posted) == 10
    assert len(set(outbox.net.ids(URL))) == 1
    assert timedelta(days=3) < sum(waits, timedelta()) < timedelta(days=4)
    assert outbox.rows("parked_at IS NOT NULL, due_at, last_error") == [(True, None, "it answered 500")]
    assert outbox.row(hook).parked == 1
    outbox.send()
    assert len(outbox.net.posted) == 10, "what was given up is not sent"


def test_replay_sends_what_was_given_up_or_received_under_the_same_id(outbox: Outbox) -> None:
    hook = outbox.add(URL).row
    tell(outbox, 2)
    outbox.send()
    first, second = outbox.net.ids(URL)
    outbox.execute("UPDATE outbox SET parked_at = now(), sent_at = NULL WHERE event_id = :id", id=first)

    def replay(**chosen: Any) -> int:
        return outbox.runtime.run(subscriptions.replay(outbox.runtime, hook.id, **chosen))

    assert replay() == 1
    assert (outbox.send(), outbox.net.ids(URL)[-1]) == (1, first)
    assert replay(event_id=UUID(second)) == 1
    assert (outbox.send(), outbox.net.ids(URL)[-1]) == (1, second)
    assert replay(since=datetime.now(UTC) - timedelta(minutes=1)) == 2
    assert replay(since=datetime.now(UTC) + timedelta(minutes=1)) == 0


def test_receiver_that_is_gone_gets_nothing_more_until_it_is_resumed(outbox: Outbox) -> None:
    hook = outbox.add(URL).row
    tell(outbox, 3)
    outbox.net.answer(URL, 410)
    outbox.send()
    seen = len(outbox.net.posted)
    tell(outbox)
    outbox.make_due()

    outbox.send()

    assert len(outbox.net.posted) == seen
    assert outbox.row(hook).disabled_by == "receiver"
    assert (outbox.row(hook).waiting, outbox.row(hook).parked) == (0, 3), "and nothing was written for it any more"
    with pytest.raises(Refused, match="dashtam hooks resume"):
        outbox.runtime.run(subscriptions.test(outbox.runtime, hook.id, actor="operator:test"))
    outbox.net.answer(URL, 204)
    assert outbox.runtime.run(subscriptions.resume(outbox.runtime, hook.id, actor="operator:test"))
    assert outbox.runtime.run(subscriptions.replay(outbox.runtime, hook.id)) == 3
    assert outbox.send() == 3


def test_pause_that_a_receiver_asks_for_is_kept_within_bounds(outbox: Outbox) -> None:
    hook = outbox.add(URL).row
    outbox.net.answer(URL, 429, pause=timedelta(days=300))
    tell(outbox, 2)

    outbox.send(pace=deliveries.Pace(places=1))

    wait_until = outbox.row(hook).wait_until
    assert wait_until is not None
    assert timedelta(minutes=59) < wait_until - datetime.now(UTC) <= sending.LONGEST_PAUSE
    assert len(outbox.net.posted) == 1, "nothing else is sent meanwhile"
    ((due_at,),) = [row for row in outbox.rows("due_at") if row[0] > datetime.now(UTC) + timedelta(hours=1)]
    assert due_at <= datetime.now(UTC) + timedelta(days=1)


@pytest.mark.deep
def test_breaker_lets_one_delivery_through_and_closes_when_it_is_received(outbox: Outbox) -> None:
    hook = outbox.add(URL).row
    outbox.net.answer(URL, 500)
    tell(outbox, 8)
    outbox.send()
    assert outbox.row(hook).failing_since is not None
    wait_until = outbox.row(hook).wait_until
    assert wait_until is not None
    assert wait_until - datetime.now(UTC) < timedelta(seconds=11), "eight that fail together are one failure"

    before = len(outbox.net.posted)
    outbox.send()
    assert len(outbox.net.posted) == before, "the breaker is open"
    outbox.make_due()
    outbox.send()
    assert len(outbox.net.posted) == before + 1, "one delivery tries whether the receiver answers again"

    outbox.net.answer(URL, 200)
    outbox.make_due()
    assert outbox.send() == 8
    assert outbox.row(hook).failing_since is None


@pytest.mark.deep
def test_slow_and_dead_receivers_delay_no_other(outbox: Outbox) -> None:
    outbox.add(URL)
    outbox.add(OTHER)
    outbox.add("https://dead.example.org/hooks")
    others_received = asyncio.Event()

    async def slow(_: Posted) -> Reply:
        async with asyncio.timeout(30):
            await others_received.wait()
        return Reply(200, None)

    async def dead(_: Posted) -> Reply:
        raise Undelivered("no connection")

    async def quick(_: Posted) -> Reply:
        if len(outbox.net.ids(OTHER)) == 40:
            others_received.set()
        return Reply(200, None)

    outbox.net.answers = {URL: slow, OTHER: quick, "https://dead.example.org/hooks": dead}
    tell(outbox, 40)

    assert outbox.send(seconds=600) == 80

    assert others_received.is_set(), "the slow receiver answered only when the other had all 40"
    assert len(outbox.net.ids("https://dead.example.org/hooks")) < 40


def test_nothing_is_sent_twice_when_postgres_cannot_record_what_was_received(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox.add(URL)
    tell(outbox)
    real, failures = deliveries.record, [Unavailable("Postgres is away")]

    def record(session: Session, **values: Any) -> None:
        if failures:
            raise failures.pop()
        real(session, **values)

    monkeypatch.setattr(deliveries, "record", record)
    monkeypatch.setattr(sending, "_RECORD_PAUSE", 0)
    with pytest.raises(Unavailable):  # it gives up when the claim is about to end
        outbox.send(pace=deliveries.Pace(claim=timedelta()))
    assert outbox.send() == 0
    tell(outbox)
    failures += [Unavailable("Postgres is away")] * 2
    assert outbox.send() == 1, "and before that it tries again"

    assert len(outbox.net.posted) == 2
    assert outbox.rows("sent_at IS NOT NULL") == [(True,), (True,)]
    assert outbox.runtime.unrecorded_hooks == {}


def test_event_waits_for_older_transactions_that_are_still_open(outbox: Outbox) -> None:
    outbox.add(URL)
    with outbox.runtime.transaction() as older:
        older.execute(text("SELECT pg_current_xact_id()"))
        tell(outbox)
        assert outbox.send(settled=False) == 0, "the change feed does not show yet what this event is about"
    assert outbox.send() == 1


@pytest.mark.deep
def test_backup_that_was_restored_elsewhere_is_sent_although_its_numbers_are_ahead(outbox: Outbox) -> None:
    outbox.add(URL)
    tell(outbox)
    outbox.execute("UPDATE outbox SET xid = xid + 1000000000")
    assert outbox.send(settled=False) == 0
    outbox.execute("UPDATE outbox SET created_at = now() - interval '11 minutes'")
    assert outbox.send(settled=False) == 1


def test_test_event_goes_to_one_hook_alone(outbox: Outbox) -> None:
    hook, _ = outbox.add(URL).row, outbox.add(OTHER)

    event_id = outbox.runtime.run(subscriptions.test(outbox.runtime, hook.id, actor="operator:ada"))
    outbox.send()

    (posted,) = outbox.net.posted
    assert (posted.url, posted.headers["webhook-id"]) == (URL, str(event_id))
    assert json.loads(posted.body)["data"] == {"hook_id": str(hook.id), "asked_by": "operator:ada"}


def test_deliveries_to_a_receiver_that_fails_for_days_are_parked_and_others_are_not(outbox: Outbox) -> None:
    failing, works = outbox.add(URL).row, outbox.add(OTHER).row
    tell(outbox)
    outbox.execute("UPDATE outbox SET created_at = now() - interval '4 days', due_at = now() + interval '1 hour'")
    outbox.execute(
        "UPDATE hook_subscriptions SET failures = 9, failing_since = now() - interval '4 days' WHERE id = :id",
        id=failing.id,
    )

    outbox.send()

    assert (outbox.row(failing).waiting, outbox.row(failing).parked) == (0, 1)
    assert (outbox.row(works).waiting, outbox.row(works).parked) == (1, 0)


@pytest.mark.deep
@pytest.mark.parametrize("by_event", [False, True])
def test_replay_sends_what_was_parked_because_the_receiver_failed_for_days(outbox: Outbox, by_event: bool) -> None:
    hook = outbox.add(URL).row
    tell(outbox)
    outbox.execute("UPDATE outbox SET created_at = now() - interval '4 days'")
    outbox.execute("UPDATE hook_subscriptions SET failures = 9, failing_since = now() - interval '4 days'")
    outbox.send()
    ((event_id,),) = outbox.rows("event_id")
    assert outbox.row(hook).parked == 1

    chosen = {"event_id": event_id} if by_event else {}
    assert outbox.runtime.run(subscriptions.replay(outbox.runtime, hook.id, **chosen)) == 1

    assert (outbox.send(), outbox.net.ids(URL)) == (1, [str(event_id)])
    assert (outbox.row(hook).failing_since, outbox.row(hook).parked) == (None, 0)
