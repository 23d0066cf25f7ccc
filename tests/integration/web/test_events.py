"""Events of runs, refreshes and logins: each is told once, to whom it concerns, also after a stream was cut off."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import anyio
import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from tests.factories import make_linked_provider
from tests.integration.web.conftest import Person, Sent, make_key, make_person, runtime_run
from tests.support.web_server import listening
from worker.crud import audit
from worker.crud.fleet import changes
from worker.errors import Unavailable
from worker.models import Provider, SyncRun, TokenRefresh, User
from worker.models.changes import Position
from worker.runtime import Runtime
from worker.services.access import events as events_module
from worker.services.access import keys
from worker.services.access.events import Events, Told, TooManyStreams
from worker.services.access.keys import Principal
from worker.tasks import send as broker
from worker.web.application import create_app
from worker.web.routes import happenings

PATIENCE_S = 60.0


@pytest.fixture
def ada(web_runtime: Runtime) -> Person:
    """A user of the test's own."""
    return make_person(web_runtime)


@pytest.fixture
def login(web_runtime: Runtime, rows: Session, ada: Person) -> Iterator[Provider]:
    """A login of hers."""
    made = make_linked_provider(rows, web_runtime.encryption, user=rows.get_one(User, ada.user_id), alias="Home")
    rows.commit()
    yield made
    rows.delete(made)
    rows.commit()


@pytest.fixture
def who(web_runtime: Runtime, ada: Person) -> Principal:
    """The owner of her key."""
    return _who(web_runtime, ada.headers)


def _who(runtime: Runtime, headers: dict[str, str]) -> Principal:
    found: Principal = runtime_run(runtime, keys.authenticate(runtime, headers["Authorization"].split()[1]))
    return found


def _run(login: Provider, **values: Any) -> SyncRun:
    now = datetime.now(UTC)
    times = {"started_at": now, "heartbeat_at": now}
    return SyncRun(provider_id=login.id, trigger="manual", owner=uuid4(), **times | values)


async def _next(told: AsyncIterator[Told]) -> Told:
    """The next message that tells something."""
    while True:
        one = await asyncio.wait_for(anext(told), PATIENCE_S)
        if one.change is not None or one.is_reset:
            return one


def _listening(runtime: Runtime, work: Callable[[Events], Awaitable[None]], *, every_s: float = 0.01) -> None:
    """Runs `work` with the streams of a process."""

    async def run() -> None:
        events = Events(runtime, every_s=every_s)
        try:
            await work(events)
        finally:
            await events.aclose()

    runtime_run(runtime, run())


async def _store(rows: Session, *found: Any) -> None:
    def write() -> None:
        rows.add_all(found)
        rows.commit()

    await asyncio.to_thread(write)


@pytest.mark.deep
def test_run_is_told_when_it_begins_and_when_it_ends(
    web_runtime: Runtime, rows: Session, login: Provider, who: Principal
) -> None:
    run = _run(login)

    async def work(events: Events) -> None:
        async with aclosing(await events.listen(who)) as told:  # type: ignore[type-var]
            await _store(rows, run)
            begun = await _next(told)
            run.status, run.finished_at, run.pages, run.added = "completed", datetime.now(UTC), 3, 7
            await _store(rows)
            ended = await _next(told)

        assert begun.change
        assert ended.change
        assert (begun.change.kind, begun.change.data["status"]) == ("run", "running")
        data = ended.change.data
        assert (data["status"], data["pages"], data["added"], data["alias"]) == ("completed", 3, 7, "Home")
        assert (data["id"], data["provider_id"]) == (str(run.id), str(login.id))

    _listening(web_runtime, work)


@pytest.mark.deep
def test_refresh_and_change_of_a_login_are_told(
    web_runtime: Runtime, rows: Session, login: Provider, who: Principal
) -> None:
    now = datetime.now(UTC)
    attempt = TokenRefresh(provider_id=login.id, generation=1, status="sent", lease_owner=uuid4(), started_at=now)

    async def work(events: Events) -> None:
        async with aclosing(await events.listen(who)) as told:  # type: ignore[type-var]
            await _store(rows, attempt)
            sent = await _next(told)
            attempt.status, attempt.error, attempt.reason = "failed", "auth_error", "invalid_grant"
            await _store(rows)
            failed = await _next(told)
            audit.record(rows, provider_id=login.id, action="paused", actor="operator:x", reason="a test")
            login.status = "paused"
            await _store(rows)
            paused = await _next(told)

        assert sent.change
        assert failed.change
        assert paused.change
        assert (sent.change.kind, sent.change.data["status"]) == ("refresh", "sent")
        assert (failed.change.data["status"], failed.change.data["reason"]) == ("failed", "invalid_grant")
        assert (paused.change.kind, paused.change.data["action"], paused.change.data["status"]) == (
            "login",
            "paused",
            "paused",
        )

    _listening(web_runtime, work)


@pytest.mark.deep
def test_users_hear_of_their_own_logins_alone_and_operators_of_all(
    web_runtime: Runtime, rows: Session, login: Provider, who: Principal, superuser_token_headers: dict[str, str]
) -> None:
    stranger = make_person(web_runtime)
    theirs = make_linked_provider(
        rows, web_runtime.encryption, user=rows.get_one(User, stranger.user_id), alias="Theirs"
    )
    rows.commit()
    operator = _who(web_runtime, superuser_token_headers)

    async def work(events: Events) -> None:
        hers, all_ = await events.listen(who), await events.listen(operator)
        await _store(rows, _run(theirs, status="failed", error="x"))
        await _store(rows, _run(login, status="completed"))
        heard = [(await _next(all_)).change, (await _next(all_)).change]
        own = (await _next(hers)).change

        assert [one.data["alias"] for one in heard if one] == ["Theirs", "Home"]
        assert own
        assert own.data["alias"] == "Home"

    _listening(web_runtime, work)


def test_transaction_that_commits_late_is_told_once_and_after_a_later_one(
    web_runtime: Runtime, rows: Session, login: Provider, who: Principal
) -> None:
    """A position that is a time would skip it: its row is older than what was already told."""
    early, late = _run(login, status="completed", pages=1), _run(login, status="completed", pages=2)

    async def work(events: Events) -> None:
        with Session(web_runtime.engine, expire_on_commit=False) as slow:
            async with aclosing(await events.listen(who)) as told:  # type: ignore[type-var]
                slow.add(early)
                await asyncio.to_thread(slow.flush)
                await _store(rows, late)
                first = await _next(told)
            again = await events.listen(who, str(first.position))
            await asyncio.to_thread(slow.commit)
            second = await _next(again)
            await _store(rows, _run(login, status="completed", pages=3))
            third = await _next(again)

        assert [one.change.data["pages"] for one in (first, second, third) if one.change] == [2, 1, 3]

    _listening(web_runtime, work)


@pytest.mark.deep
def test_stream_that_was_cut_off_goes_on_after_its_last_event(
    web_runtime: Runtime, rows: Session, login: Provider, who: Principal
) -> None:
    async def work(events: Events) -> None:
        async with aclosing(await events.listen(who)) as told:  # type: ignore[type-var]
            await _store(rows, _run(login, status="completed", pages=1))
            last = await _next(told)
        for number in (2, 3):
            await _store(rows, _run(login, status="completed", pages=number))
        again = await events.listen(who, str(last.position))
        missed = [await _next(again), await _next(again)]
        await _store(rows, _run(login, status="completed", pages=4))
        after = await _next(again)

        assert [one.change.data["pages"] for one in (*missed, after) if one.change] == [2, 3, 4]
        assert [one.position is None for one in missed] == [True, False], "the id comes with the last of a transaction"

    _listening(web_runtime, work)


@pytest.mark.deep
def test_stream_goes_on_at_another_process_that_has_seen_less(
    web_runtime: Runtime, rows: Session, login: Provider, who: Principal
) -> None:
    async def work(ahead: Events) -> None:
        behind = Events(web_runtime, every_s=0.01)
        other = await behind.listen(who)
        behind._read_once, read = _nothing, behind._read_once  # type: ignore[method-assign]
        async with aclosing(await ahead.listen(who)) as told:  # type: ignore[type-var]
            await _store(rows, _run(login, status="completed", pages=1))
            last = await _next(told)
        again = await behind.listen(who, str(last.position))
        behind._read_once = read  # type: ignore[method-assign]
        await _store(rows, _run(login, status="completed", pages=2))
        first_of_other, first_again = await _next(other), await _next(again)
        await behind.aclose()

        assert first_of_other.change
        assert first_of_other.change.data["pages"] == 1
        assert first_again.change
        assert first_again.change.data["pages"] == 2, "what the client knows already is not told again"

    _listening(web_runtime, work)


async def _nothing() -> None:
    pass


def test_revoked_key_ends_its_streams(web_runtime: Runtime, ada: Person, who: Principal) -> None:
    other = _who(web_runtime, make_key(web_runtime, ada.user_id))

    async def work(events: Events) -> None:
        ended, kept = await events.listen(other), await events.listen(who)
        await keys.revoke(web_runtime, other.prefix, actor="operator:tests")
        async with asyncio.timeout(PATIENCE_S):
            rest = [one async for one in ended]

        assert all(one.change is None for one in rest)
        assert len(events._streams) == 1
        await kept.aclose()  # type: ignore[attr-defined]
        assert events._reader is None

    _listening(web_runtime, work)


@pytest.mark.deep
def test_key_may_have_so_many_streams_and_no_more(web_runtime: Runtime, who: Principal) -> None:
    most = web_runtime.settings.web_streams_per_key

    async def work(events: Events) -> None:
        open_ = [await events.listen(who) for _ in range(most)]
        with pytest.raises(TooManyStreams, match=f"has {most} streams"):
            await events.listen(who)
        await open_[0].aclose()  # type: ignore[attr-defined]
        await events.listen(who)

    _listening(web_runtime, work)


@pytest.mark.deep
@pytest.mark.parametrize("of", ["long-ago", "another-database", "the-future"])
def test_position_from_which_nothing_can_be_told_is_reset(
    web_runtime: Runtime, rows: Session, login: Provider, who: Principal, of: str
) -> None:
    async def work(events: Events) -> None:
        here = await web_runtime.db(changes.here)
        number = here.next_number
        last = {
            "long-ago": Position(here.at - timedelta(days=1), 5, 5),
            "another-database": Position(here.at, number + 1000, number + 1000),
            "the-future": Position(here.at + timedelta(days=1), number, number),
        }[of]
        told = await events.listen(who, str(last))
        first = await _next(told)
        await _store(rows, _run(login, status="completed", pages=1))
        second = await _next(told)

        assert first.is_reset
        assert first.position
        assert second.change
        assert second.change.data["pages"] == 1

    _listening(web_runtime, work)


@pytest.mark.deep
def test_too_many_changes_at_once_are_a_reset(
    web_runtime: Runtime, rows: Session, login: Provider, who: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "_MOST_CHANGES", 2)

    async def work(events: Events) -> None:
        told = await events.listen(who)
        here = events._position
        await _store(rows, *(_run(login, status="completed", pages=number) for number in range(3)))
        live, again = await _next(told), await _next(await events.listen(who, str(here)))

        assert live.is_reset
        assert again.is_reset

    _listening(web_runtime, work)


@pytest.mark.deep
def test_client_that_does_not_read_is_told_to_read_everything_anew(
    web_runtime: Runtime, rows: Session, login: Provider, who: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "_MOST_WAITING", 2)

    async def work(events: Events) -> None:
        told = await events.listen(who)
        for number in range(4):  # nothing of it is read meanwhile
            await _store(rows, _run(login, status="completed", pages=number))
            await events._read_once()
        heard = [await _next(told)]
        while not heard[-1].is_reset:
            heard.append(await _next(told))

        assert len(heard) <= 3

    _listening(web_runtime, work, every_s=3600)


@pytest.mark.deep
def test_while_postgres_is_away_streams_stay_open_and_are_served_afterwards(
    web_runtime: Runtime, rows: Session, login: Provider, who: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    since, failed = changes.since, threading.Event()

    def away_once(*args: Any, **kwargs: Any) -> Any:
        if not failed.is_set():
            failed.set()
            raise Unavailable("Postgres is away")
        return since(*args, **kwargs)

    async def work(events: Events) -> None:
        told = await events.listen(who)
        monkeypatch.setattr(changes, "since", away_once)
        await _store(rows, _run(login, status="completed", pages=5))
        heard = await _next(told)

        assert failed.is_set()
        assert heard.change
        assert heard.change.data["pages"] == 5

    _listening(web_runtime, work)


@pytest.mark.deep
def test_reader_that_fails_ends_the_streams_so_that_clients_connect_anew(
    web_runtime: Runtime, who: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ValueError("unexpected")

    async def work(events: Events) -> None:
        told = await events.listen(who)
        monkeypatch.setattr(changes, "since", broken)
        async with asyncio.timeout(PATIENCE_S):
            assert all([one.change is None async for one in told])
        monkeypatch.undo()
        await (await events.listen(who)).aclose()  # type: ignore[attr-defined]

        assert not events._streams

    with capture_logs() as lines:
        _listening(web_runtime, work)
    assert "events_failed" in [line["event"] for line in lines]


@pytest.mark.deep
def test_one_query_serves_all_streams_and_none_runs_for_nobody(
    web_runtime: Runtime, who: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    since, asked = changes.since, [0]

    def counted(*args: Any, **kwargs: Any) -> Any:
        asked[0] += 1
        return since(*args, **kwargs)

    monkeypatch.setattr(changes, "since", counted)

    async def work(events: Events) -> None:
        open_ = [await events.listen(who) for _ in range(5)]
        before = asked[0]
        await events._read_once()
        assert asked[0] - before <= 2  # the reader's own turn may be among them
        for one in open_:
            await one.aclose()  # type: ignore[attr-defined]
        assert events._reader is None

    _listening(web_runtime, work, every_s=60)


@pytest.mark.deep
def test_heartbeat_tells_where_the_stream_is(
    web_runtime: Runtime, who: Principal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_module, "HEARTBEAT_SECONDS", 0.05)

    async def work(events: Events) -> None:
        told = await events.listen(who)
        first = await anext(told)
        async with asyncio.timeout(PATIENCE_S):
            later = await anext(told)
            while later.position == first.position:
                later = await anext(told)

        assert later.change is None
        assert first.position
        assert later.position
        assert later.position.at > first.position.at

    _listening(web_runtime, work)


@pytest.mark.deep
def test_stream_ends_with_its_server(web_runtime: Runtime, who: Principal) -> None:
    async def work(events: Events) -> None:
        leaving = anyio.Event()
        written = happenings._written(await events.listen(who), events, leaving)
        await anext(written)
        leaving.set()
        async with asyncio.timeout(PATIENCE_S):
            rest = [one async for one in written]

        assert rest == []
        assert not events._streams

    _listening(web_runtime, work)


# Over HTTP ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def origin(web_runtime: Runtime, sent: Sent) -> Iterator[str]:
    """The address of a server on a socket."""
    with listening(create_app(web_runtime, send=sent, transport=broker)) as address:
        yield address


@pytest.mark.deep
def test_stream_over_http_tells_events_and_ends_with_its_key(
    web_runtime: Runtime, rows: Session, ada: Person, login: Provider, origin: str
) -> None:
    headers = make_key(web_runtime, ada.user_id)
    with httpx.stream("GET", f"{origin}/api/v1/events", headers=headers, timeout=PATIENCE_S) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        lines = answer.iter_lines()
        assert next(lines) == ": alive"
        rows.add(_run(login, status="completed", pages=9))
        rows.commit()
        fields: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            fields |= {name: value} if name else {}
            if "data" in fields and not line:
                break
        runtime_run(web_runtime, keys.revoke(web_runtime, _who(web_runtime, headers).prefix, actor="operator:tests"))
        assert not [line for line in lines if line.startswith("data")], "the stream ends"

    assert fields["event"] == "run"
    assert json.loads(fields["data"])["pages"] == 9
    assert Position.read(fields["id"])


@pytest.mark.deep
def test_stream_needs_a_key_that_may_read(client: TestClient, web_runtime: Runtime, ada: Person) -> None:
    assert client.get("/api/v1/events").status_code == 401
    assert client.get("/api/v1/events", headers=make_key(web_runtime, ada.user_id, "link")).status_code == 403


@pytest.mark.deep
def test_last_event_id_that_is_none_is_refused(client: TestClient, ada: Person) -> None:
    answer = client.get("/api/v1/events", headers=ada.headers | {"Last-Event-ID": "1' OR 1=1"})

    assert answer.status_code == 400
    assert "Last-Event-ID" in answer.json()["detail"]
    assert client.get("/api/v1/events", headers=ada.headers | {"Last-Event-ID": "1" * 8001}).status_code == 422


@pytest.mark.deep
def test_stream_too_many_is_told_to_wait(client: TestClient, ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "_MOST_STREAMS", 0)

    answer = client.get("/api/v1/events", headers=ada.headers)

    assert answer.status_code == 429
    assert answer.headers["retry-after"]


@pytest.mark.deep
def test_stream_of_the_pages_needs_a_login(client: TestClient) -> None:
    assert client.get("/status/events", follow_redirects=False).status_code == 303
