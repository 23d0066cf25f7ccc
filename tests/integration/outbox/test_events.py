"""Each event is written in the transaction that makes it true: its row and the changed row name the same one."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.event import listen, remove

from tests.factories import make_linked_provider, make_user
from tests.integration.outbox.conftest import Outbox
from tests.integration.sync.conftest import Linked, link_model
from tests.integration.sync.feeds import Movement
from worker.crud import hooks, integration_states, links, notices, steering, upkeep
from worker.crud.integration_states import BreakerPolicy
from worker.crud.outbox import deliveries
from worker.crud.refresh import reauth, tokens
from worker.crud.refresh.records import NewToken, Settlement
from worker.errors import BadArgument
from worker.models import SyncRun
from worker.models.feed_cursor import Cursor
from worker.models.hooks import Ask, Hook
from worker.models.vocabulary import EventType, RunStatus, Trigger
from worker.services import feed
from worker.services.outbox import subscriptions

__all__ = ["link_model"]

KEY = "schwab"
POLICY = BreakerPolicy(failures=2, providers=1, open_for=timedelta(seconds=15), open_at_most=timedelta(minutes=5))


@pytest.fixture
def login(outbox: Outbox) -> UUID:
    """A linked login, with a hook for all events."""
    outbox.add()
    with outbox.runtime.transaction() as session:
        return make_linked_provider(session, outbox.runtime.encryption, provider_key=KEY, external_id="login-1").id


def token(login: UUID, **values: Any) -> NewToken:
    """A new token after the first one."""
    given = {"access_token": "a", "refresh_token": "r", "key_id": "k", "issued_at": datetime.now(UTC)}
    return NewToken(provider_id=login, generation=1, **given | values)


def link_again(outbox: Outbox, login: UUID) -> None:
    with outbox.runtime.transaction() as session:
        links.store_grant(session, token=token(login, new_grant=True), owner=uuid4())


def find_token(outbox: Outbox, login: UUID) -> None:
    owner = uuid4()
    outbox.execute("UPDATE providers SET status = 'needs_reauth', status_reason = 'lost_rotation'")
    with outbox.runtime.transaction() as session:
        tokens.lease(session, ids=[login], owner=owner, seconds=60, active_only=False)
        assert tokens.store(session, tokens=[token(login)], owner=owner)


def refuse_refresh(outbox: Outbox, login: UUID) -> None:
    owner, ended = uuid4(), {"status": "needs_reauth", "status_reason": "invalid_grant"}
    with outbox.runtime.transaction() as session:
        tokens.lease(session, ids=[login], owner=owner, seconds=60)
        assert tokens.settle(session, settlements=[Settlement(provider_id=login, generation=1, **ended)], owner=owner)


def refuse_sync(outbox: Outbox, login: UUID) -> None:
    refused = {"generation": 1, "reason": "login_required", "channels": ("log",), "task_id": None}
    with outbox.runtime.transaction() as session:
        assert reauth.need_reauth(session, provider_id=login, **refused)


def end_grant(outbox: Outbox, login: UUID) -> None:
    with outbox.runtime.transaction() as session:
        later = datetime.now(UTC) + timedelta(days=8)
        assert notices.expire_grants(session, now=later, limit=10, channels=()) == 1


def unlink(outbox: Outbox, login: UUID) -> None:
    with outbox.runtime.transaction() as session:
        links.end_link(session, provider_id=login, actor="user", revoked=True)


@pytest.mark.parametrize(
    ("act", "event", "data"),
    [
        (link_again, EventType.PROVIDER_LINKED, {"how": "linked_again"}),
        (find_token, EventType.PROVIDER_LINKED, {"how": "token_found"}),
        (refuse_refresh, EventType.PROVIDER_NEEDS_REAUTH, {"reason": "invalid_grant"}),
        (refuse_sync, EventType.PROVIDER_NEEDS_REAUTH, {"reason": "login_required"}),
        (end_grant, EventType.PROVIDER_NEEDS_REAUTH, {"reason": "grant_expired"}),
        (unlink, EventType.PROVIDER_UNLINKED, {}),
    ],
)
def test_change_of_a_login_and_its_event_are_one_transaction(
    outbox: Outbox, login: UUID, act: Callable[[Outbox, UUID], None], event: str, data: dict[str, str]
) -> None:
    act(outbox, login)

    (row,) = outbox.rows("type, provider_id, data, xid")
    ((user_id, xid),) = _rows(outbox, "SELECT user_id, CAST(CAST(xmin AS text) AS bigint) FROM providers")
    about = {"provider_id": str(login), "provider_key": KEY, "user_id": str(user_id)}
    assert row[:3] == (event, login, about | data)
    assert row[3] % 2**32 == xid


def test_first_link_is_told_as_such(outbox: Outbox, login: UUID) -> None:
    outbox.execute("DELETE FROM provider_tokens")
    with outbox.runtime.transaction() as session:
        first = NewToken(
            provider_id=login,
            generation=0,
            access_token="a",
            refresh_token=None,
            key_id="k",
            issued_at=datetime.now(UTC),
            new_grant=True,
        )
        links.store_grant(session, token=first, owner=uuid4())

    assert outbox.rows("type, data ->> 'how'") == [("provider.linked", "linked")]


@pytest.mark.deep
def test_ordinary_refresh_and_second_unlinking_are_no_events(outbox: Outbox, login: UUID) -> None:
    owner = uuid4()
    with outbox.runtime.transaction() as session:
        tokens.lease(session, ids=[login], owner=owner, seconds=60)
        assert tokens.store(session, tokens=[token(login)], owner=owner)
    assert outbox.rows() == []

    unlink(outbox, login)
    unlink(outbox, login)

    assert outbox.types() == ["provider.unlinked"]


def test_grant_that_ends_soon_is_told_once_for_each_stage(outbox: Outbox, login: UUID) -> None:
    def warn(stage: str) -> None:
        with outbox.runtime.transaction() as session:
            until = datetime.now(UTC) + timedelta(days=8)
            spans = {"after": (datetime.now(UTC), UUID(int=0)), "until": until, "now": datetime.now(UTC)}
            notices.warn_of_grants(session, stage=stage, limit=10, channels=(), **spans)

    for stage in ("expires_72h", "expires_72h", "expires_24h"):
        warn(stage)

    assert sorted(outbox.rows("type, data ->> 'stage'")) == [
        ("provider.grant_expiring", "expires_24h"),
        ("provider.grant_expiring", "expires_72h"),
    ]
    assert all(datetime.fromisoformat(ends).tzinfo for (ends,) in outbox.rows("data ->> 'grant_expires_at'"))


def test_hook_of_a_provider_that_it_disconnects_soon_is_passed_on(outbox: Outbox, login: UUID) -> None:
    for delivery in ("one", "two", "two"):
        with outbox.runtime.transaction() as session:
            hooks.receive(
                session,
                provider_key=KEY,
                hook=Hook("ITEM/PENDING_DISCONNECT", delivery, login="login-1", notice="disconnects_soon"),
                asks=frozenset({Ask.CHECK}),
                body_sha256=b"x" * 32,
                pause=timedelta(seconds=5),
                burst=timedelta(seconds=20),
                channels=(),
            )

    assert outbox.rows("type, data ->> 'stage'") == [("provider.grant_expiring", "disconnects_soon")]


def test_forgotten_user_s_logins_are_told_to_operators_as_unlinked(outbox: Outbox, login: UUID) -> None:
    ((email, user_id),) = _rows(outbox, "SELECT email, users.id FROM users JOIN providers ON users.id = user_id")
    outbox.add("https://theirs.example.org/", user_id=user_id)

    with outbox.runtime.transaction() as session:
        assert steering.forget_user(session, email=email)

    assert outbox.rows("type, provider_id") == [("provider.unlinked", login)], "nothing waits for the user's own hook"
    assert outbox.send() == 1
    assert outbox.net.posted[0].event["data"]["user_id"] == str(user_id)


def test_delivery_of_a_hook_that_is_gone_is_not_counted_as_waiting_or_given_up(outbox: Outbox, login: UUID) -> None:
    for column in ("due_at", "parked_at"):
        outbox.execute(
            f"INSERT INTO outbox (event_id, subscription_id, type, data, {column})"  # noqa: S608
            " VALUES (gen_random_uuid(), gen_random_uuid(), 'hook.test', '{}', now())"
        )

    with outbox.runtime.transaction() as session:
        assert deliveries.backlog(session) == deliveries.Backlog(0, 0, 0, None)


def test_alarm_and_outage_of_an_integration_begin_and_end_once(outbox: Outbox) -> None:
    outbox.add()
    now = datetime.now(UTC)
    failed = {"provider_key": KEY, "failures": 2, "consecutive": True, "failing": ["a"], "now": now, "policy": POLICY}

    with outbox.runtime.transaction() as session:
        assert integration_states.raise_alarm(session, provider_key=KEY, reason="401", now=now, channels=())
        assert not integration_states.raise_alarm(session, provider_key=KEY, reason="401", now=now, channels=())
    assert outbox.rows("xid % 4294967296") == _rows(
        outbox, "SELECT CAST(CAST(xmin AS text) AS bigint) FROM integration_states"
    )
    with outbox.runtime.transaction() as session:
        integration_states.resume(session, provider_key=KEY)
        integration_states.pause(session, provider_key=KEY, reason="by hand", actor="operator:x", now=now)
        integration_states.resume(session, provider_key=KEY)  # of a pause by hand: there was no alarm
    with outbox.runtime.transaction() as session:
        integration_states.count_failures(session, **failed)
        integration_states.let_probe_through(session, provider_key=KEY, now=now + timedelta(hours=1))
        integration_states.count_failures(session, **failed)  # its probe failed: it is the same outage
    with outbox.runtime.transaction() as session:
        integration_states.count_success(session, provider_key=KEY)
        integration_states.count_success(session, provider_key=KEY)

    assert outbox.rows("type, data ->> 'kind'") == [
        ("integration.alarm", "app_misconfigured"),
        ("integration.recovered", None),
        ("integration.alarm", "outage"),
        ("integration.recovered", None),
    ]


@pytest.mark.deep
def test_sync_is_told_with_its_counts_and_one_that_stores_nothing_is_not(
    link_model: Callable[..., Linked],
) -> None:
    linked = link_model()
    outbox = Outbox(linked.runtime)
    outbox.add()
    linked.integration.books.put(Movement("t1", "A", "-1.00"))

    first = linked.sync()

    (row,) = outbox.rows("event_id, type, data, xid")
    assert row[:2] == (first.id, "sync.completed"), "the event has the id of its run"
    data = row[2]
    assert (data["run_id"], data["status"], data["mode"]) == (str(first.id), "completed", "incremental")
    assert data["counts"]["transactions"]["added"] == 1
    assert row[3] % 2**32 == linked.rows("SELECT CAST(CAST(xmin AS text) AS bigint) FROM sync_runs")[0][0]

    asked: list[str] = []

    def note(*given: Any) -> None:
        asked.append(given[2])

    listen(linked.runtime.engine, "before_cursor_execute", note)
    try:
        linked.sync()
        linked.sync()
    finally:
        remove(linked.runtime.engine, "before_cursor_execute", note)

    assert len(outbox.rows()) == 1
    assert asked
    assert not any("hook_subscriptions" in statement for statement in asked), "a sync that finds nothing asks nothing"


@pytest.mark.deep
def test_cursor_of_a_sync_lies_before_its_rows_and_belongs_to_the_hook_s_owner(
    link_model: Callable[..., Linked],
) -> None:
    linked = link_model()
    outbox = Outbox(linked.runtime)
    ((user_id,),) = linked.rows("SELECT user_id FROM providers")
    outbox.add("https://app.example.org/", "sync.completed")
    outbox.add("https://theirs.example.org/", "sync.completed", user_id=user_id)
    linked.integration.books.put(Movement("t1", "A", "-1.00"))

    linked.sync()

    texts = [cursor for (cursor,) in outbox.rows("data ->> 'cursor'")]
    cursors = [Cursor.parse(given) for given in texts]
    ((first_row,),) = linked.rows("SELECT min(xid) FROM change_log")
    assert {cursor.user_id for cursor in cursors} == {None, user_id}
    assert all(cursor.xid <= first_row for cursor in cursors)
    for given, cursor in zip(texts, cursors, strict=True):
        linked.runtime.run(feed.page(linked.runtime, user_id=cursor.user_id, cursor=given, limit=10))


def test_run_that_did_not_end_well_is_told_if_it_stored_rows(outbox: Outbox, login: UUID) -> None:
    def begin(**counts: int) -> UUID:
        with outbox.runtime.transaction() as session:
            now = datetime.now(UTC)
            run = SyncRun(
                provider_id=login,
                owner=uuid4(),
                status=RunStatus.RUNNING,
                trigger=Trigger.SCHEDULE,
                mode="incremental",
                started_at=now,
                heartbeat_at=now,
                **counts,
            )
            session.add(run)
            session.flush()
            return run.id

    later = datetime.now(UTC) + timedelta(hours=1)
    dead, quiet = begin(changed=2), None
    with outbox.runtime.transaction() as session:
        assert upkeep.end_dead_runs(session, now=later, heartbeat_before=later, limit=10) == 1
    quiet = begin()
    with outbox.runtime.transaction() as session:
        assert upkeep.end_dead_runs(session, now=later, heartbeat_before=later, limit=10) == 1
    cut_off = begin(removed=1)
    unlink(outbox, login)

    assert outbox.rows("event_id, data ->> 'status'")[:2] == [(dead, RunStatus.FAILED), (cut_off, RunStatus.FAILED)]
    assert quiet not in [id_ for (id_,) in outbox.rows("event_id")]


def test_nothing_is_written_of_what_is_rolled_back_or_without_a_hook_that_wants_it(outbox: Outbox, login: UUID) -> None:
    with outbox.runtime.transaction() as session:
        links.end_link(session, provider_id=login, actor="user", revoked=True)
        session.rollback()
    assert outbox.rows() == []

    outbox.execute("UPDATE hook_subscriptions SET events = '{sync.completed}'")
    unlink(outbox, login)
    assert outbox.rows() == []


def test_user_s_hook_is_told_of_the_user_s_own_logins_alone(outbox: Outbox, login: UUID) -> None:
    outbox.execute("DELETE FROM hook_subscriptions")
    with outbox.runtime.transaction() as session:
        other = make_user(session).id
    ((owner,),) = _rows(outbox, "SELECT user_id FROM providers")
    mine = outbox.add("https://mine.example.org/", user_id=owner).row
    outbox.add("https://theirs.example.org/", user_id=other)
    with outbox.runtime.transaction() as session:
        integration_states.raise_alarm(session, provider_key=KEY, reason="x", now=datetime.now(UTC), channels=())

    unlink(outbox, login)

    assert outbox.rows("subscription_id, type") == [(mine.id, "provider.unlinked")]
    with pytest.raises(BadArgument, match="no single user"):
        outbox.add("https://mine.example.org/", "integration.alarm", user_id=owner)
    assert "integration.alarm" not in mine.events


def test_subscription_gets_only_the_events_that_it_names(outbox: Outbox) -> None:
    row = outbox.add("https://app.example.org/", "sync.completed").row
    assert row.events == ["sync.completed"]
    with pytest.raises(BadArgument, match=r"no event is named 'hook\.test'"):
        outbox.add("https://app.example.org/", "hook.test")
    assert [one.id for one in outbox.runtime.run(subscriptions.list_all(outbox.runtime))] == [row.id]


def _rows(outbox: Outbox, query: str) -> list[tuple[Any, ...]]:
    with outbox.runtime.transaction() as session:
        return [tuple(row) for row in session.execute(text(query))]
