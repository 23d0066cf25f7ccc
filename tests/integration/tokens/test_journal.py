from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
import redis
from msgspec import structs
from sqlalchemy import create_engine

from tests.integration.tokens.conftest import Desk, MakeDesk
from tests.support.databases import migrate
from tests.support.environment import new_keys
from tests.support.scripted import ScriptedIntegration, answer
from worker.crud.refresh import tokens as token_rows
from worker.devstack import Devstack
from worker.errors import Fenced, ReauthRequired, Unavailable
from worker.integrations.kit.base import TokenAnswer
from worker.process import redis_names
from worker.runtime import Runtime
from worker.services.linking import begin, complete, end, revocation
from worker.services.refresh import journal, protocol
from worker.services.refresh.plan import seal_answer
from worker.services.refresh.results import Outcome
from worker.settings import Settings, load

Kept = TypeVar("Kept")

NO_REDIS = "redis://127.0.0.1:1/0"


def _entry(desk: Desk) -> Any:
    return desk.runtime.redis.hgetall(redis_names.JOURNAL)


def _spool(desk: Desk) -> list[Path]:
    return list((desk.runtime.settings.home / "spool").glob("*.json"))


def _drain(desk: Desk) -> int:
    return desk.runtime.run(journal.drain(desk.runtime))


def _journal_one(desk: Desk, **values: Any) -> Any:
    """A provider whose answer is in the journal since its lease was lost."""
    id_ = desk.link(**values)
    desk.lose_lease_during_the_call(id_)
    assert desk.refresh(id_) == {id_: Outcome.JOURNALED}
    desk.let_lease_end(id_)
    return id_


# Postgres really stopped


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Devstack]:
    """A Postgres of these tests' own, which they may stop."""
    stack = Devstack(tmp_path_factory.mktemp("stack"), durable=False, environ={"REDIS_URL": NO_REDIS})
    with stack.session(erase=True) as urls:
        migrate(urls.database_url)
        yield stack


@pytest.fixture
def fragile(
    stack: Devstack, redis_url: str, settings: Settings, redis: Any, tmp_path: Path
) -> Iterator[Callable[..., Desk]]:
    """Desks on that Postgres; `redis=False` takes Redis away as well."""
    made: list[Desk] = []

    def make(*, redis: bool = True) -> Desk:
        own = load(
            Settings,
            database_url=stack.up().database_url,
            redis_url=redis_url if redis else NO_REDIS,
            DASHTAM_HOME=str(tmp_path / "home"),
        )
        schwab = ScriptedIntegration()
        engine = create_engine(own.database_url.get_secret_value(), pool_pre_ping=True)
        made.append(Desk(Runtime(own, integrations={"schwab": schwab}), schwab, engine))
        return made[-1]

    yield make
    stack.up()
    for desk in made:
        desk.runtime.close()
        desk.engine.dispose()


def _stop_postgres_during_the_call(desk: Desk, stack: Devstack) -> None:
    def answer_as_postgres_goes(token: str) -> TokenAnswer:
        stack.down()
        return answer()

    desk.schwab.script = [answer_as_postgres_goes]


def _refreshed_as_postgres_goes(
    desk: Desk, stack: Devstack, *, kept: Callable[[Desk], Kept]
) -> tuple[UUID, dict[UUID, Outcome], Kept]:
    """A refresh whose answer comes when Postgres is away, and what is kept of it until Postgres is back."""
    id_ = desk.link()
    _stop_postgres_during_the_call(desk, stack)
    outcomes = desk.refresh(id_)
    left = kept(desk)
    stack.up()
    return id_, outcomes, left


@pytest.mark.deep
def test_answer_survives_in_redis_while_postgres_is_down(fragile: Callable[..., Desk], stack: Devstack) -> None:
    desk = fragile()

    id_, outcomes, kept = _refreshed_as_postgres_goes(desk, stack, kept=_entry)

    assert outcomes == {id_: Outcome.JOURNALED}
    assert len(kept) == 1
    assert b"access-2" not in next(iter(kept.values()))
    assert _drain(desk) == 1
    assert desk.plain(id_, "refresh") == "refresh-2"
    assert [row["status"] for row in desk.attempts(id_)] == ["done"]
    assert desk.audit(id_) == ["token_refreshed"]
    assert _entry(desk) == {}
    assert desk.schwab.presented == ["refresh-1"]


@pytest.mark.deep
def test_answer_survives_on_disk_while_postgres_and_redis_are_down(
    fragile: Callable[..., Desk], stack: Devstack
) -> None:
    desk = fragile(redis=False)

    id_, outcomes, files = _refreshed_as_postgres_goes(desk, stack, kept=_spool)

    assert outcomes == {id_: Outcome.JOURNALED}
    assert [stat.S_IMODE(path.stat().st_mode) for path in files] == [0o600]
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
    assert "access-2" not in files[0].read_text()
    desk.let_lease_end(id_)
    assert desk.refresh(id_) == {id_: Outcome.REFRESHED}
    assert desk.schwab.presented == ["refresh-1"]
    assert desk.plain(id_, "refresh") == "refresh-2"
    assert _spool(desk) == []


@pytest.mark.deep
def test_link_made_while_postgres_goes_down_is_stored_by_the_drain(
    fragile: Callable[..., Desk], stack: Devstack
) -> None:
    desk = fragile()
    user = desk.rows("INSERT INTO users (id) VALUES (gen_random_uuid()) RETURNING id")[0]["id"]
    begun = desk.runtime.run(begin.begin_link(desk.runtime, "schwab", user, "Main"))
    callback = f"https://127.0.0.1?code=c&state={begun.url.partition('state=')[2]}"
    _stop_postgres_during_the_call(desk, stack)

    with pytest.raises(Unavailable):
        desk.runtime.run(complete.complete_link(desk.runtime, callback, holder=begun.holder))
    stack.up()

    assert _drain(desk) == 1
    provider = desk.rows("SELECT * FROM providers WHERE user_id = :user", user=user)[0]
    assert provider["status"] == "active"
    assert desk.plain(provider["id"], "refresh") == "refresh-2"


def _journal_link(desk: Desk, stack: Devstack, user: UUID, alias: str, **values: Any) -> None:
    """A login that is linked while Postgres goes down."""
    begun = desk.runtime.run(begin.begin_link(desk.runtime, "schwab", user, alias))

    def answer_as_postgres_goes(code: str) -> TokenAnswer:
        stack.down()
        return answer(50, **values)

    desk.schwab.script = [answer_as_postgres_goes]
    callback = f"https://127.0.0.1?code=c&state={begun.url.partition('state=')[2]}"
    with pytest.raises(Unavailable):
        desk.runtime.run(complete.complete_link(desk.runtime, callback, holder=begun.holder))
    stack.up()


@pytest.mark.deep
def test_link_that_waits_in_the_journal_outlives_a_refresh_of_the_old_grant(
    fragile: Callable[..., Desk], stack: Devstack
) -> None:
    desk = fragile()
    id_ = desk.link(alias="Main")
    _journal_link(desk, stack, desk.provider(id_)["user_id"], "Main")
    desk.schwab.script = [answer(9)]
    desk.refresh(id_)

    assert _drain(desk) == 1
    assert desk.plain(id_, "refresh") == "refresh-50"
    assert desk.audit(id_) == ["token_refreshed", "linked"]


@pytest.mark.parametrize("redis_is_there", [True, False])
def test_answer_to_the_old_grant_does_not_push_a_link_out_of_the_journal(
    make_desk: MakeDesk, redis_url: str, redis_is_there: bool
) -> None:
    desk = make_desk(redis_url=redis_url if redis_is_there else NO_REDIS)
    id_ = desk.link()
    made = {
        new_grant: seal_answer(
            desk.runtime.encryption,
            desk.schwab.refresh_policy,
            answer(number),
            provider_id=id_,
            generation=1,
            issued_at=datetime.now(UTC),
            new_grant=new_grant,
        )
        for new_grant, number in ((True, 50), (False, 9))
    }
    for token in made.values():
        desk.runtime.run(journal.keep(desk.runtime, [token]))

    kept = list(_entry(desk).values()) if redis_is_there else [path.read_bytes() for path in _spool(desk)]

    assert sorted(b'"new_grant":true' in entry for entry in kept) == [False, True]
    found = desk.runtime.run(journal.find(desk.runtime, id_, 1))
    assert found is not None
    assert found.new_grant


@pytest.mark.deep
def test_link_that_waits_in_the_journal_gives_way_to_an_unlinking(
    fragile: Callable[..., Desk], stack: Devstack
) -> None:
    desk = fragile()
    id_ = desk.link(alias="Main")
    _journal_link(desk, stack, desk.provider(id_)["user_id"], "Main")
    desk.runtime.run(end.unlink(desk.runtime, id_))

    assert _drain(desk) == 0
    assert _entry(desk) == {}
    assert desk.provider(id_)["status"] == "unlinked"


@pytest.mark.deep
def test_link_that_waits_in_the_journal_finds_its_login_under_another_alias(
    fragile: Callable[..., Desk], stack: Devstack
) -> None:
    desk = fragile()
    id_ = desk.link(alias="Main", external_id="login-1")
    _journal_link(desk, stack, desk.provider(id_)["user_id"], "Other", external_id="login-1")

    assert _drain(desk) == 1
    assert desk.plain(id_, "refresh") == "refresh-50"
    assert [row["alias"] for row in desk.rows("SELECT alias FROM providers WHERE external_id = 'login-1'")] == ["Main"]


# Draining


def test_entry_is_applied_before_anything_else_touches_its_provider(desk: Desk) -> None:
    id_ = _journal_one(desk)

    outcomes = desk.refresh(id_, force=True)

    assert outcomes == {id_: Outcome.REFRESHED}
    assert desk.schwab.presented == ["refresh-1"]
    assert desk.plain(id_, "refresh") == "refresh-2"
    assert _entry(desk) == {}


@pytest.mark.deep
def test_older_entry_never_overwrites_a_newer_generation(desk: Desk) -> None:
    id_ = _journal_one(desk)
    newer = desk.runtime.encryption.seal("newer", provider_id=id_, kind="refresh", generation=2)
    desk.rows("UPDATE provider_tokens SET generation = 2, refresh_token = :t WHERE provider_id = :id", id=id_, t=newer)

    assert _drain(desk) == 0

    assert desk.plain(id_, "refresh") == "newer"
    assert _entry(desk) == {}


@pytest.mark.deep
def test_entry_waits_while_another_worker_holds_the_lease(desk: Desk) -> None:
    id_ = _journal_one(desk)
    desk.rows("UPDATE provider_tokens SET lease_until = now() + interval '1 minute'")

    assert _drain(desk) == 0
    assert len(_entry(desk)) == 1

    desk.let_lease_end(id_)
    assert _drain(desk) == 1


@pytest.mark.deep
def test_entry_that_cannot_be_stored_holds_up_no_other(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [_journal_one(desk) for _ in range(3)]
    store = token_rows.store

    def refuse_one(session: Any, *, tokens: Any, owner: Any) -> Any:
        if tokens[0].provider_id == next(iter(bad)):
            raise ValueError("a row that Postgres refuses")
        return store(session, tokens=tokens, owner=owner)

    monkeypatch.setattr(token_rows, "store", refuse_one)
    bad = {desk.runtime.run(journal.entries(desk.runtime))[0].provider_id}

    assert _drain(desk) == 2
    assert {desk.token(id_)["generation"] for id_ in set(ids) - bad} == {2}
    assert len(_entry(desk)) == 1


@pytest.mark.deep
def test_entry_of_a_provider_that_is_gone_goes_too(desk: Desk) -> None:
    _journal_one(desk)
    desk.rows("DELETE FROM providers")

    assert _drain(desk) == 0
    assert _entry(desk) == {}


@pytest.mark.deep
@pytest.mark.parametrize("why", ["gone", "of another user"])
def test_link_that_can_never_be_stored_leaves_the_journal(desk: Desk, why: str) -> None:
    known, id_ = desk.link(external_id="item-1"), desk.link(status="pending")
    _keep_grant(desk, id_, external_id="item-1")
    if why == "gone":
        desk.rows("DELETE FROM providers WHERE id = :id", id=id_)

    assert _drain(desk) == 0
    assert _entry(desk) == {}
    assert desk.plain(known, "refresh") == "refresh-1"
    assert desk.rows("SELECT 1 FROM revocations") == []  # it may be the grant that is in use


@pytest.mark.deep
@pytest.mark.parametrize("external_id", ["item-1", None])
@pytest.mark.parametrize("why", ["gone", "unlinked"])
def test_link_that_can_never_be_stored_is_ended_at_its_provider(desk: Desk, why: str, external_id: str | None) -> None:
    id_ = desk.link()
    desk.link(alias="Other", external_id="item-2" if external_id else None)
    _keep_grant(desk, id_, external_id=external_id)
    if why == "gone":
        desk.rows("DELETE FROM providers WHERE id = :id", id=id_)
    else:
        desk.runtime.run(end.unlink(desk.runtime, id_))
        desk.schwab.revoked.clear()

    assert _drain(desk) == 0
    assert _entry(desk) == {}
    assert desk.runtime.run(revocation.revoke_waiting(desk.runtime)) == 1
    assert desk.schwab.revoked == [("access-9", "refresh-9")]


@pytest.mark.deep
def test_link_that_a_later_one_without_a_login_id_has_overtaken_is_left_alone(desk: Desk) -> None:
    id_ = desk.link()
    _keep_grant(desk, id_, external_id=None)
    desk.rows(
        "INSERT INTO provider_audit_logs (id, provider_id, action, actor, detail)"
        " VALUES (gen_random_uuid(), :id, 'linked', 'user', '{}')",
        id=id_,
    )

    assert _drain(desk) == 0
    assert _entry(desk) == {}
    assert desk.rows("SELECT 1 FROM revocations") == []


@pytest.mark.deep
def test_link_that_waits_beside_an_attempt_without_an_end_is_stored_as_a_link(desk: Desk) -> None:
    id_ = desk.link()
    desk.leave_behind(id_)
    _keep_grant(desk, id_, external_id="item-1")

    assert desk.refresh(id_) == {id_: Outcome.REFRESHED}
    assert desk.plain(id_, "refresh") == "refresh-9"
    assert desk.provider(id_)["external_id"] == "item-1"
    assert desk.audit(id_) == ["linked"]
    assert desk.schwab.presented == []
    assert _entry(desk) == {}


def test_link_that_was_overtaken_is_not_stored_for_an_attempt_without_an_end(desk: Desk) -> None:
    id_ = desk.link()
    desk.leave_behind(id_)
    _keep_grant(desk, id_, external_id=None)
    desk.rows(
        "INSERT INTO provider_audit_logs (id, provider_id, action, actor, detail)"
        " VALUES (gen_random_uuid(), :id, 'linked', 'user', '{}')",
        id=id_,
    )

    assert desk.refresh(id_) == {id_: Outcome.BUSY}
    assert desk.plain(id_, "refresh") == "refresh-1"
    assert _entry(desk) == {}


def test_refused_retry_beside_a_link_in_the_journal_needs_no_user(desk: Desk) -> None:
    id_ = desk.link()
    desk.leave_behind(id_)

    async def grant_arrives_meanwhile(token: str) -> TokenAnswer:
        await _keep(desk, id_, external_id=None)
        raise ReauthRequired("invalid_grant")

    desk.schwab.script = [grant_arrives_meanwhile]

    desk.refresh(id_)

    assert desk.provider(id_)["status"] == "active"
    desk.let_lease_end(id_)
    assert _drain(desk) == 1
    assert desk.plain(id_, "refresh") == "refresh-9"


def _keep_grant(desk: Desk, id_: UUID, *, external_id: str | None) -> None:
    """A login that was linked and waits in the journal."""
    desk.runtime.run(_keep(desk, id_, external_id=external_id))


async def _keep(desk: Desk, id_: UUID, *, external_id: str | None) -> None:
    grant = seal_answer(
        desk.runtime.encryption,
        None,
        answer(9, external_id=external_id),
        provider_id=id_,
        generation=1,
        issued_at=desk.now(),
        new_grant=True,
    )
    await journal.keep(desk.runtime, [structs.replace(grant, provider_key="schwab")])


def test_entry_that_redis_will_not_forget_is_out_of_date_at_the_next_drain(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = _journal_one(desk)

    def away(*_: object) -> None:
        raise redis.exceptions.ConnectionError

    with monkeypatch.context() as patched:
        patched.setattr(desk.runtime.redis, "hdel", away)
        assert _drain(desk) == 1
    assert len(_entry(desk)) == 1

    assert _drain(desk) == 0
    assert _entry(desk) == {}
    assert desk.token(id_)["generation"] == 2


@pytest.mark.deep
def test_entry_stays_when_its_lease_is_lost_before_it_is_stored(desk: Desk) -> None:
    id_ = _journal_one(desk)
    (entry,) = desk.runtime.run(journal.entries(desk.runtime))

    with pytest.raises(Fenced):
        desk.runtime.run(journal.apply(desk.runtime, entry, owner=uuid4()))

    assert len(_entry(desk)) == 1
    assert desk.token(id_)["generation"] == 1


@pytest.mark.deep
def test_entry_stays_until_its_commit(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    _journal_one(desk)

    async def gone(*_: object, **__: object) -> None:
        raise Unavailable("Postgres: gone")

    with monkeypatch.context() as patched:
        patched.setattr(desk.runtime, "db", gone)
        with pytest.raises(Unavailable):
            _drain(desk)

    assert len(_entry(desk)) == 1
    assert _drain(desk) == 1


@pytest.mark.deep
def test_drained_rotation_revives_a_provider_given_up_as_lost(desk: Desk) -> None:
    id_ = _journal_one(desk)
    desk.rows("UPDATE providers SET status = 'needs_reauth', status_reason = 'lost_rotation', refresh_due_at = NULL")

    assert _drain(desk) == 1

    assert desk.provider(id_)["status"] == "active"
    assert desk.provider(id_)["refresh_due_at"] is not None


@pytest.mark.deep
def test_drain_leaves_a_provider_that_is_dead_for_another_reason_dead(desk: Desk) -> None:
    id_ = _journal_one(desk)
    desk.rows("UPDATE providers SET status = 'needs_reauth', status_reason = 'invalid_grant'")

    assert _drain(desk) == 1
    assert desk.provider(id_)["status"] == "needs_reauth"


@pytest.mark.deep
def test_refused_retry_takes_the_first_answer_from_the_journal(desk: Desk) -> None:
    id_ = desk.link()
    desk.leave_behind(id_)

    async def first_answer_arrives_late(token: str) -> TokenAnswer:
        leased = desk.token(id_)
        late = journal.NewToken(
            provider_id=id_,
            generation=1,
            access_token=desk.runtime.encryption.seal("late", provider_id=id_, kind="access", generation=2),
            refresh_token=desk.runtime.encryption.seal("late", provider_id=id_, kind="refresh", generation=2),
            key_id=leased["key_id"],
            issued_at=leased["issued_at"],
        )
        await journal.keep(desk.runtime, [late])
        raise ReauthRequired("invalid_grant")

    desk.schwab.script = [first_answer_arrives_late]

    outcomes = desk.refresh(id_)

    assert outcomes == {id_: Outcome.REFRESHED}
    assert desk.plain(id_, "refresh") == "late"
    assert desk.provider(id_)["status"] == "active"


@pytest.mark.deep
def test_unknown_outcome_waits_while_the_journal_cannot_be_asked(make_desk: MakeDesk) -> None:
    desk = make_desk(redis_url=NO_REDIS)
    id_ = desk.link()
    desk.leave_behind(id_)

    outcomes = desk.refresh(id_)

    assert outcomes == {id_: Outcome.DEFERRED}
    assert desk.schwab.presented == []
    assert desk.token(id_)["lease_owner"] is None


@pytest.mark.deep
def test_refresh_without_a_past_needs_no_redis(make_desk: MakeDesk) -> None:
    desk = make_desk(redis_url=NO_REDIS)
    id_ = desk.link()

    assert desk.refresh(id_) == {id_: Outcome.REFRESHED}


@pytest.mark.deep
def test_drain_without_redis_says_so(make_desk: MakeDesk) -> None:
    desk = make_desk(redis_url=NO_REDIS)

    with pytest.raises(Unavailable, match="journal"):
        _drain(desk)


def test_answer_that_nothing_can_keep_is_an_unknown_outcome(make_desk: MakeDesk, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the directory should be")
    desk = make_desk(redis_url=NO_REDIS, DASHTAM_HOME=str(blocked))
    id_ = desk.link()
    desk.lose_lease_during_the_call(id_)

    assert desk.refresh(id_) == {id_: Outcome.UNKNOWN}
    assert [row["status"] for row in desk.attempts(id_)] == ["sent"]


@pytest.mark.deep
@pytest.mark.parametrize("damage", ["moved", "unreadable"])
def test_entry_that_cannot_be_trusted_is_neither_applied_nor_lost(desk: Desk, damage: str) -> None:
    id_ = _journal_one(desk)
    field, raw = next(iter(_entry(desk).items()))
    entry = (
        b"{}"
        if damage == "unreadable"
        else raw.replace(b'"generation":1', b'"generation":1').replace(desk.token(id_)["key_id"].encode(), b"other-key")
    )
    desk.runtime.redis.hset(redis_names.JOURNAL, field, entry)

    assert _drain(desk) == 0
    assert desk.token(id_)["generation"] == 1
    assert desk.token(id_)["lease_owner"] is None or damage == "unreadable"
    assert _entry(desk) == {field: entry}


def test_entry_written_by_a_key_that_is_away_holds_its_provider_back(make_desk: MakeDesk) -> None:
    both = new_keys("k1", "k2")
    desk = make_desk(encryption_keys=both)
    id_ = _journal_one(desk)
    field, raw = next(iter(_entry(desk).items()))
    desk.runtime.redis.hset(redis_names.JOURNAL, field, raw.replace(b'"k1"', b'"k9"'))

    outcomes = desk.refresh(id_)

    assert outcomes == {id_: Outcome.FAILED}
    assert len(desk.schwab.presented) == 1
    assert len(_entry(desk)) == 1


@pytest.mark.deep
def test_spool_that_breaks_in_mid_write_leaves_nothing_half_done(
    make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    desk = make_desk(redis_url=NO_REDIS, DASHTAM_HOME=str(tmp_path / "home"))
    id_ = desk.link()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    def lose_lease(token: str) -> TokenAnswer:
        desk.rows("UPDATE provider_tokens SET lease_owner = gen_random_uuid() WHERE provider_id = :id", id=id_)
        monkeypatch.setattr(os, "fsync", full)
        return answer()

    desk.schwab.script = [lose_lease]

    assert desk.refresh(id_) == {id_: Outcome.UNKNOWN}
    assert [path.name for path in (tmp_path / "home" / "spool").iterdir()] == ["id"]


@pytest.mark.deep
def test_answers_that_arrive_together_wait_for_a_hanging_redis_once(make_desk: MakeDesk, tmp_path: Path) -> None:
    desk = make_desk(DASHTAM_HOME=str(tmp_path / "home"))
    ids = [desk.link() for _ in range(8)]
    asked: list[int] = []
    all_there = asyncio.Barrier(8)

    async def answer_together(token: str) -> TokenAnswer:
        if await all_there.wait() == 0:
            desk.rows("UPDATE provider_tokens SET lease_owner = gen_random_uuid()")
        await all_there.wait()
        return answer()

    def hang(_script: str, _keys: int, _key: str, *names_entries_times: object) -> None:
        asked.append(len(names_entries_times) // 3)
        raise redis.exceptions.TimeoutError

    desk.schwab.script = [answer_together] * 8
    desk.runtime.__dict__["redis"] = SimpleNamespace(eval=hang, close=lambda: None)

    assert desk.refresh(*ids) == dict.fromkeys(ids, Outcome.JOURNALED)
    assert asked == [8]
    assert len(_spool(desk)) == 8


# Time is up while an answer is being stored


@pytest.mark.deep
def test_answers_that_arrived_are_kept_when_time_is_up_while_one_is_stored(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = desk.link(alias="First"), desk.link(alias="Second")
    is_storing, goes_on, has_arrived = threading.Event(), threading.Event(), asyncio.Event()
    store = token_rows.store

    def stand_still(session: Any, **values: Any) -> set[UUID]:
        is_storing.set()
        goes_on.wait(60)
        return store(session, **values)

    async def answer_while_the_first_is_stored(token: str) -> TokenAnswer:
        await asyncio.to_thread(is_storing.wait, 60)
        has_arrived.set()
        return answer(3)

    async def end_when_both_have_arrived() -> None:
        refresh = asyncio.ensure_future(protocol.refresh_providers(desk.runtime, [first, second]))
        await has_arrived.wait()
        refresh.cancel()
        with suppress(asyncio.CancelledError):
            await refresh

    desk.schwab.script = [answer(2), answer_while_the_first_is_stored]
    monkeypatch.setattr(token_rows, "store", stand_still)
    try:
        desk.runtime.run(end_when_both_have_arrived())
        kept = set(desk.runtime.redis.hkeys(redis_names.JOURNAL))
    finally:
        goes_on.set()

    assert kept == {f"{id_}.1".encode() for id_ in (first, second)}
