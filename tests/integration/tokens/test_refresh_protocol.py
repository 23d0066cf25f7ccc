from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy.orm import Session

from tests.integration.tokens.conftest import Desk, MakeDesk
from tests.support.scripted import answer
from worker.crud.refresh import tokens as token_rows
from worker.errors import (
    AppMisconfigured,
    BadPayload,
    BadRequest,
    InstitutionDown,
    NotFound,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    ReauthRequired,
    Refused,
    Scope,
    Transient,
)
from worker.integrations.kit.base import Caller, TokenAnswer
from worker.process import failpoints
from worker.services.refresh import claims
from worker.services.refresh.access_token import AccessToken, access_token
from worker.services.refresh.results import Outcome


@pytest.mark.deep
def test_rotated_token_is_stored_as_the_next_generation_with_clocks_attempt_and_audit(desk: Desk) -> None:
    id_ = desk.link(refresh_failures=3)

    outcomes = desk.refresh(id_)

    provider = desk.provider(id_)
    assert outcomes == {id_: Outcome.REFRESHED}
    assert desk.schwab.presented == ["refresh-1"]
    assert (desk.plain(id_, "access"), desk.plain(id_, "refresh")) == ("access-2", "refresh-2")
    assert desk.token(id_)["generation"] == 2
    assert desk.token(id_)["lease_owner"] is None
    assert [row["status"] for row in desk.attempts(id_)] == ["done"]
    assert desk.audit(id_) == ["token_refreshed"]
    assert provider["refresh_failures"] == 0
    assert timedelta(minutes=29) < provider["access_expires_at"] - datetime.now(UTC) <= timedelta(minutes=30)
    assert timedelta(minutes=8) < provider["refresh_due_at"] - datetime.now(UTC) <= timedelta(minutes=18)


@pytest.mark.deep
def test_refresh_keeps_old_token_when_answer_omits_it(desk: Desk) -> None:
    id_ = desk.link()
    desk.schwab.script = [answer(2, refresh_token=None)]

    desk.refresh(id_)

    assert desk.plain(id_, "refresh") == "refresh-1"
    assert desk.token(id_)["generation"] == 2


@pytest.mark.deep
def test_refresh_never_moves_the_grant_clock(desk: Desk) -> None:
    id_ = desk.link()
    before = desk.provider(id_)["grant_expires_at"]

    desk.refresh(id_)

    assert desk.provider(id_)["grant_expires_at"] == before


@pytest.mark.deep
def test_attempt_is_committed_before_the_call_and_no_transaction_is_open_during_it(desk: Desk) -> None:
    id_ = desk.link()
    seen: dict[str, Any] = {}

    def look(token: str) -> TokenAnswer:
        seen["attempts"] = [row["status"] for row in desk.attempts(id_)]
        seen["leased"] = desk.token(id_)["lease_owner"] is not None
        seen["open"] = desk.rows(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND state LIKE 'idle in transaction%'"
        )
        return answer()

    desk.schwab.script = [look]

    desk.refresh(id_)

    assert seen == {"attempts": ["sent"], "leased": True, "open": []}


@pytest.mark.deep
def test_fresh_token_is_not_sent_and_its_due_time_is_set_again(desk: Desk) -> None:
    id_ = desk.link(issued_at=datetime.now(UTC), refresh_due_at=datetime.now(UTC))

    outcomes = desk.refresh(id_)

    assert outcomes == {id_: Outcome.FRESH}
    assert desk.schwab.presented == []
    assert desk.attempts(id_) == []
    assert desk.provider(id_)["refresh_due_at"] > datetime.now(UTC) + timedelta(minutes=8)
    assert desk.token(id_)["lease_owner"] is None


@pytest.mark.deep
def test_forced_refresh_sends_a_fresh_token(desk: Desk) -> None:
    id_ = desk.link(issued_at=datetime.now(UTC))

    assert desk.refresh(id_, force=True, manual=True) == {id_: Outcome.REFRESHED}
    assert desk.schwab.callers == [Caller(provider_id=id_, manual=True)]


@pytest.mark.deep
def test_stale_generation_is_refreshed_once_however_many_met_it(desk: Desk) -> None:
    id_ = desk.link(issued_at=datetime.now(UTC))

    first = desk.refresh(id_, stale_generation=1)
    second = desk.refresh(id_, stale_generation=1)

    assert (first[id_], second[id_]) == (Outcome.REFRESHED, Outcome.FRESH)
    assert desk.schwab.presented == ["refresh-1"]


def test_leased_token_is_left_alone(desk: Desk) -> None:
    lease = {"lease_owner": uuid4(), "lease_until": datetime.now(UTC) + timedelta(minutes=1)}
    id_ = desk.link(token=lease)

    assert desk.refresh(id_) == {id_: Outcome.BUSY}
    assert desk.schwab.presented == []


@pytest.mark.deep
def test_ended_lease_is_taken_over(desk: Desk) -> None:
    lease = {"lease_owner": uuid4(), "lease_until": datetime.now(UTC) - timedelta(seconds=1)}
    id_ = desk.link(token=lease)

    assert desk.refresh(id_) == {id_: Outcome.REFRESHED}


@pytest.mark.parametrize("status", ["pending", "paused", "unlinked", "needs_reauth"])
def test_nothing_is_sent_for_a_provider_that_is_not_active(desk: Desk, status: str) -> None:
    id_ = desk.link(status=status)

    assert desk.refresh(id_, force=True) == {id_: Outcome.INACTIVE}
    assert desk.schwab.presented == []


def test_unknown_provider_is_missing(desk: Desk) -> None:
    id_ = uuid4()

    assert desk.refresh(id_) == {id_: Outcome.MISSING}


@pytest.mark.deep
def test_token_without_refresh_is_unsupported_and_never_due_again(desk: Desk) -> None:
    id_ = desk.link(refresh_token=None, refresh_due_at=datetime.now(UTC))

    assert desk.refresh(id_, force=True) == {id_: Outcome.UNSUPPORTED}
    assert desk.provider(id_)["refresh_due_at"] is None


@pytest.mark.deep
def test_integration_that_is_not_enabled_keeps_its_providers_due(desk: Desk) -> None:
    due_at = datetime.now(UTC) - timedelta(minutes=1)
    id_ = desk.link(provider_key="elsewhere", refresh_due_at=due_at)

    assert desk.refresh(id_) == {id_: Outcome.UNSUPPORTED}
    assert desk.provider(id_)["refresh_due_at"] == due_at


# Errors


@pytest.mark.deep
def test_dead_grant_needs_reauth_with_its_reason_and_stops_all_calls(desk: Desk) -> None:
    id_ = desk.link()
    desk.schwab.script = [ReauthRequired("invalid_grant")]

    first = desk.refresh(id_)
    second = desk.refresh(id_, force=True)

    provider = desk.provider(id_)
    assert (first[id_], second[id_]) == (Outcome.NEEDS_REAUTH, Outcome.INACTIVE)
    assert (provider["status"], provider["status_reason"]) == ("needs_reauth", "invalid_grant")
    assert provider["refresh_due_at"] is None
    assert len(desk.schwab.presented) == 1
    assert desk.audit(id_) == ["needs_reauth"]
    assert desk.attempts(id_)[0]["error"] == "reauth_required"
    notices = desk.rows("SELECT stage FROM notices WHERE provider_id = :id", id=id_)
    assert {row["stage"] for row in notices} == {"needs_reauth"}


@pytest.mark.deep
def test_login_that_was_paused_during_the_call_stays_paused_and_its_user_is_told_nothing(desk: Desk) -> None:
    id_ = desk.link()

    def pause(_: str) -> TokenAnswer:
        desk.rows("UPDATE providers SET status = 'paused' WHERE id = :id", id=id_)
        raise ReauthRequired("invalid_grant")

    desk.schwab.script = [pause]

    desk.refresh(id_)

    assert desk.provider(id_)["status"] == "paused"
    assert desk.rows("SELECT stage FROM notices WHERE provider_id = :id", id=id_) == []
    assert desk.audit(id_) == []
    assert desk.attempts(id_)[0]["status"] == "failed"
    assert desk.token(id_)["lease_owner"] is None


@pytest.mark.deep
@pytest.mark.parametrize(
    ("error", "attempt", "failures"),
    [
        (Transient("http_503"), "failed", 1),
        (Transient("http_503", scope=Scope.APP), "failed", 0),
        (InstitutionDown("bank_away"), "failed", 0),
        (BadRequest("invalid_request"), "failed", 1),
        (BadPayload("redirect_refused"), "failed", 1),
        (RateLimited("http_429"), "deferred", 1),
        (AppMisconfigured("invalid_client"), "failed", 0),
        (OutcomeUnknown("timeout"), "unknown", 0),
        (BadPayload("token_type"), "unknown", 0),
        (RuntimeError("a fault of ours"), "unknown", 0),
    ],
    ids=lambda value: getattr(value, "reason", None) and f"{type(value).__name__}-{value.reason}-{value.scope}",
)
def test_error_that_may_pass_never_demands_reauth(desk: Desk, error: Exception, attempt: str, failures: int) -> None:
    id_ = desk.link()
    desk.schwab.script = [error]

    desk.refresh(id_)

    provider = desk.provider(id_)
    assert provider["status"] == "active"
    assert provider["refresh_failures"] == failures
    assert timedelta(seconds=15) < provider["refresh_due_at"] - datetime.now(UTC) < timedelta(minutes=1)
    assert [row["status"] for row in desk.attempts(id_)] == [attempt]
    assert desk.plain(id_, "refresh") == "refresh-1"
    assert desk.token(id_)["lease_owner"] is None


@pytest.mark.deep
def test_retry_after_is_honoured(desk: Desk) -> None:
    id_ = desk.link()
    before = desk.now()
    desk.schwab.script = [RateLimited("http_429", retry_after=timedelta(hours=2))]

    desk.refresh(id_)

    # By the database's clock, whatever this machine's says.
    assert before + timedelta(hours=2) <= desk.provider(id_)["refresh_due_at"] <= desk.now() + timedelta(hours=2)


@pytest.mark.deep
def test_limit_without_a_time_waits_longer_each_time(desk: Desk) -> None:
    id_ = desk.link()
    waits = []
    for _ in range(5):
        desk.schwab.script = [RateLimited("http_429")]
        desk.refresh(id_)
        waits.append(desk.provider(id_)["refresh_due_at"] - desk.now())

    assert waits[0] < timedelta(minutes=1)
    assert waits[4] > timedelta(minutes=5)


@pytest.mark.deep
def test_broken_client_credential_pauses_the_integration_and_harms_no_user(desk: Desk) -> None:
    ids = [desk.link() for _ in range(3)]
    desk.schwab.script = [AppMisconfigured("invalid_client")] * 3

    desk.refresh(*ids)

    states = desk.rows("SELECT paused_at, alarm FROM integration_states WHERE provider_key = 'schwab'")
    assert states[0]["paused_at"] is not None
    assert states[0]["alarm"] == "invalid_client"
    assert {desk.provider(id_)["status"] for id_ in ids} == {"active"}
    assert {desk.provider(id_)["refresh_failures"] for id_ in ids} == {0}


# Unknown outcomes


@pytest.mark.deep
def test_unknown_outcome_is_retried_exactly_once_with_the_old_token(desk: Desk) -> None:
    id_ = desk.link()
    desk.schwab.script = [OutcomeUnknown("timeout")]

    outcomes = [desk.refresh(id_)[id_] for _ in range(3)]

    assert outcomes == [Outcome.UNKNOWN, Outcome.REFRESHED, Outcome.FRESH]
    assert desk.schwab.presented == ["refresh-1", "refresh-1"]
    assert desk.provider(id_)["status"] == "active"


@pytest.mark.deep
@pytest.mark.parametrize(
    "second", [ReauthRequired("invalid_grant"), OutcomeUnknown("timeout")], ids=["refused", "lost"]
)
def test_failed_retry_after_an_unknown_outcome_is_a_lost_rotation(desk: Desk, second: ProviderError) -> None:
    id_ = desk.link()
    desk.schwab.script = [OutcomeUnknown("timeout"), second]

    outcomes = [desk.refresh(id_)[id_] for _ in range(4)]

    provider = desk.provider(id_)
    assert outcomes == [Outcome.UNKNOWN, Outcome.NEEDS_REAUTH, Outcome.INACTIVE, Outcome.INACTIVE]
    assert (provider["status"], provider["status_reason"]) == ("needs_reauth", "lost_rotation")
    assert desk.schwab.presented == ["refresh-1", "refresh-1"]


@pytest.mark.deep
def test_retry_that_was_not_acted_upon_does_not_use_up_the_retry(desk: Desk) -> None:
    id_ = desk.link()
    desk.schwab.script = [OutcomeUnknown("timeout"), Transient("connect_failed"), RateLimited("http_429")]

    outcomes = [desk.refresh(id_)[id_] for _ in range(4)]

    assert outcomes == [Outcome.UNKNOWN, Outcome.FAILED, Outcome.DEFERRED, Outcome.REFRESHED]


@pytest.mark.deep
def test_attempt_of_a_dead_worker_is_retried_once(desk: Desk) -> None:
    id_ = desk.link()
    desk.leave_behind(id_)

    outcomes = desk.refresh(id_)

    assert outcomes == {id_: Outcome.REFRESHED}
    assert [row["status"] for row in desk.attempts(id_)] == ["unknown", "done"]


@pytest.mark.deep
def test_two_attempts_of_dead_workers_are_a_lost_rotation_without_another_call(desk: Desk) -> None:
    id_ = desk.link()
    desk.leave_behind(id_)
    desk.leave_behind(id_)

    outcomes = desk.refresh(id_)

    assert outcomes == {id_: Outcome.NEEDS_REAUTH}
    assert desk.provider(id_)["status_reason"] == "lost_rotation"
    assert desk.schwab.presented == []
    assert desk.rows("SELECT 1 FROM notices WHERE provider_id = :id", id=id_)


@pytest.mark.deep
def test_call_that_outlasts_its_deadline_is_an_unknown_outcome(make_desk: MakeDesk) -> None:
    desk = make_desk(http_total_seconds=0.05, lease_seconds=1)
    id_ = desk.link()

    async def hang(token: str) -> TokenAnswer:
        await asyncio.Event().wait()
        raise AssertionError

    desk.schwab.script = [hang]

    assert desk.refresh(id_) == {id_: Outcome.UNKNOWN}
    assert desk.attempts(id_)[0]["reason"] == "deadline"


# Fences


def _sibling(desk: Desk, id_: UUID) -> None:
    """Another worker takes the lease over and stores its own answer."""
    sealed = {
        kind: desk.runtime.encryption.seal(f"sibling-{kind}", provider_id=id_, kind=kind, generation=2)
        for kind in ("access", "refresh")
    }
    desk.rows(
        "UPDATE provider_tokens SET generation = 2, access_token = :access, refresh_token = :refresh,"
        " lease_owner = NULL, lease_until = NULL, issued_at = now() WHERE provider_id = :id",
        id=id_,
        **sealed,
    )
    desk.rows("UPDATE providers SET access_expires_at = now() + interval '30 minutes' WHERE id = :id", id=id_)


@pytest.mark.deep
@pytest.mark.parametrize(
    "late", [answer(9), ReauthRequired("invalid_grant"), OutcomeUnknown("timeout")], ids=["answer", "refused", "lost"]
)
def test_siblings_newer_generation_stands_whatever_the_stale_worker_brings(
    desk: Desk, late: TokenAnswer | ProviderError
) -> None:
    id_ = desk.link()

    def overtaken(token: str) -> TokenAnswer:
        _sibling(desk, id_)
        if isinstance(late, ProviderError):
            raise late
        return late

    desk.schwab.script = [overtaken]

    desk.refresh(id_)

    assert desk.provider(id_)["status"] == "active"
    assert desk.plain(id_, "refresh") == "sibling-refresh"
    token = desk.runtime.run(access_token(desk.runtime, id_, caller=Caller()))
    assert (token.value, token.generation) == ("sibling-access", 2)


@pytest.mark.deep
def test_answer_without_the_lease_goes_to_the_journal_and_not_over_the_token(desk: Desk) -> None:
    id_ = desk.link()
    desk.lose_lease_during_the_call(id_)

    assert desk.refresh(id_) == {id_: Outcome.JOURNALED}
    assert desk.token(id_)["generation"] == 1
    desk.let_lease_end(id_)
    assert desk.refresh(id_) == {id_: Outcome.REFRESHED}
    assert desk.schwab.presented == ["refresh-1"]
    assert desk.plain(id_, "refresh") == "refresh-2"


@pytest.mark.deep
@pytest.mark.parametrize("moved", ["provider", "kind", "generation", "key"])
def test_ciphertext_that_was_moved_is_refused_before_any_call(desk: Desk, moved: str) -> None:
    id_, other = desk.link(), desk.link(refresh_token="other-1")
    change = {
        "provider": "refresh_token = (SELECT refresh_token FROM provider_tokens WHERE provider_id = :other)",
        "kind": "refresh_token = access_token",
        "generation": "generation = 7",
        "key": "key_id = 'withdrawn'",
    }[moved]
    desk.rows(f"UPDATE provider_tokens SET {change} WHERE provider_id = :id", id=id_, other=other)  # noqa: S608

    outcomes = desk.refresh(id_)

    assert outcomes == {id_: Outcome.FAILED}
    assert desk.schwab.presented == []
    assert desk.attempts(id_) == []
    assert desk.provider(id_)["status"] == "active"
    assert desk.provider(id_)["refresh_failures"] == 1


# Batches


@pytest.mark.deep
def test_window_bounds_the_calls_in_flight(make_desk: MakeDesk) -> None:
    desk = make_desk(refresh_concurrency=3)
    ids = [desk.link() for _ in range(10)]

    outcomes = desk.refresh(*ids)

    assert set(outcomes.values()) == {Outcome.REFRESHED}
    assert desk.schwab.most_in_flight == 3


@pytest.mark.deep
def test_slow_provider_delays_neither_the_calls_nor_the_storing_of_others(
    make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(refresh_concurrency=2)
    slow, *others = [desk.link(refresh_token=f"p{n}-1") for n in range(6)]
    all_stored = asyncio.Event()

    def look(_: str, place: str) -> None:
        if place == "after_commit" and {desk.token(id_)["generation"] for id_ in others} == {2}:
            all_stored.set()

    async def one_waits_for_the_others(token: str) -> TokenAnswer:
        if token == "p0-1":
            await all_stored.wait()  # or until the call's deadline, which is no success
        return desk.schwab.rotate(token)

    monkeypatch.setattr(failpoints, "reach", look)
    desk.schwab.script = [one_waits_for_the_others] * 6

    outcomes = desk.refresh(slow, *others)

    assert set(outcomes.values()) == {Outcome.REFRESHED}


def test_one_bad_provider_leaves_the_others_of_its_batch_alone(desk: Desk) -> None:
    ids = [desk.link() for _ in range(5)]
    desk.schwab.script = [
        ReauthRequired("invalid_grant"),
        OutcomeUnknown("timeout"),
        ValueError("a fault of ours"),
        RateLimited("http_429"),
    ]

    outcomes = desk.refresh(*ids)

    assert sorted(outcomes.values()) == ["deferred", "needs_reauth", "refreshed", "unknown", "unknown"]


def test_group_that_cannot_be_stored_is_stored_row_by_row(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [desk.link() for _ in range(4)]
    bad, store = ids[1], token_rows.store

    def fail_with_bad(session: Session, *, tokens: Any, owner: UUID) -> set[UUID]:
        if any(token.provider_id == bad for token in tokens):
            raise ValueError("a row that the table does not take")
        return store(session, tokens=tokens, owner=owner)

    monkeypatch.setattr(token_rows, "store", fail_with_bad)

    outcomes = desk.refresh(*ids)

    assert {id_: str(outcome) for id_, outcome in outcomes.items()} == {
        **dict.fromkeys(ids, "refreshed"),
        bad: "journaled",
    }


@pytest.mark.deep
def test_text_that_postgres_cannot_hold_does_not_cost_the_token(desk: Desk) -> None:
    id_ = desk.link()
    desk.schwab.script = [answer(2, scope="api\x00")]

    assert desk.refresh(id_) == {id_: Outcome.REFRESHED}


def test_trouble_with_the_lease_still_keeps_what_is_in_flight(
    make_desk: MakeDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = make_desk(refresh_concurrency=2)
    ids = [desk.link() for _ in range(4)]
    lease, calls = token_rows.lease, []

    def fail_second(session: Session, **values: Any) -> list[Any]:
        calls.append(values)
        if len(calls) > 1:
            raise ValueError("a fault of ours")
        return lease(session, **values)

    monkeypatch.setattr(token_rows, "lease", fail_second)

    with pytest.raises(ValueError, match="a fault of ours"):
        desk.refresh(*ids)

    assert sorted(desk.token(id_)["generation"] for id_ in ids) == [1, 1, 2, 2]


# Access tokens


def test_usable_access_token_is_read_without_a_call(desk: Desk) -> None:
    id_ = desk.link(issued_at=datetime.now(UTC))

    token = desk.runtime.run(access_token(desk.runtime, id_, caller=Caller()))

    assert (token.value, token.generation) == ("access-1", 1)
    assert desk.schwab.presented == []
    assert "access-1" not in repr(token)


@pytest.mark.deep
@pytest.mark.parametrize("wanted", ["expired", "stale"])
def test_access_token_that_will_not_do_is_refreshed_first(desk: Desk, wanted: str) -> None:
    if wanted == "expired":
        id_, stale = desk.link(), None
    else:
        id_, stale = desk.link(issued_at=datetime.now(UTC)), 1

    token = desk.runtime.run(access_token(desk.runtime, id_, caller=Caller(), stale_generation=stale))

    assert (token.value, token.generation) == ("access-2", 2)
    assert desk.attempts(id_)[0]["trigger"] == "sync"


def test_many_who_need_the_token_at_once_wait_for_one_refresh(desk: Desk) -> None:
    id_ = desk.link()

    async def all_at_once() -> list[AccessToken]:
        wanted = (access_token(desk.runtime, id_, caller=Caller()) for _ in range(12))
        return await asyncio.gather(*wanted)

    async def slowly(token: str) -> TokenAnswer:
        await asyncio.sleep(0.05)
        return answer()

    desk.schwab.script = [slowly]

    found = desk.runtime.run(all_at_once())

    assert {token.value for token in found} == {"access-2"}
    assert desk.schwab.presented == ["refresh-1"]


@pytest.mark.deep
def test_access_token_gives_up_on_a_lease_that_does_not_end(make_desk: MakeDesk) -> None:
    desk = make_desk(http_total_seconds=0.02, lease_seconds=0.05)
    lease = {"lease_owner": uuid4(), "lease_until": datetime.now(UTC) + timedelta(minutes=1)}
    id_ = desk.link(token=lease)

    with pytest.raises(Transient, match="refresh_in_progress"):
        desk.runtime.run(access_token(desk.runtime, id_, caller=Caller()))


def _no_provider(desk: Desk) -> UUID:
    return uuid4()


@pytest.mark.parametrize(
    ("make", "stale", "error"),
    [
        (_no_provider, None, NotFound),
        (lambda desk: desk.link(status="paused"), None, Refused),
        (lambda desk: desk.link(status="unlinked"), None, Refused),
        (lambda desk: desk.link(status="needs_reauth", status_reason="invalid_grant"), None, ReauthRequired),
        (lambda desk: desk.link(refresh_token=None, lifetime=None), 1, ReauthRequired),
        (lambda desk: (desk.schwab.script.append(Transient("http_503")), desk.link())[1], None, Transient),
        (lambda desk: (desk.schwab.script.append(ReauthRequired("gone")), desk.link())[1], None, ReauthRequired),
    ],
    ids=["missing", "paused", "unlinked", "needs_reauth", "refused_without_refresh", "transient", "dead"],
)
def test_access_token_says_why_there_is_none(
    desk: Desk, make: Callable[[Desk], UUID], stale: int | None, error: type[Exception]
) -> None:
    id_ = make(desk)

    with pytest.raises(error):
        desk.runtime.run(access_token(desk.runtime, id_, caller=Caller(), stale_generation=stale))


# Claims


@pytest.mark.deep
def test_claim_takes_what_is_due_before_the_next_tick_earliest_first(desk: Desk) -> None:
    now = datetime.now(UTC)
    later, soon, over = (desk.link(refresh_due_at=now + timedelta(seconds=s)) for s in (60, 10, -60))

    batches = desk.runtime.run(claims.claim_refresh_due(desk.runtime, now, tick_s=15))
    again = desk.runtime.run(claims.claim_refresh_due(desk.runtime, now, tick_s=15))

    assert [batch.ids for batch in batches] == [[over, soon]]
    assert again == []
    assert desk.provider(later)["refresh_due_at"] == now + timedelta(seconds=60)


def test_claim_leaves_a_paused_integration_alone(desk: Desk) -> None:
    desk.link(refresh_due_at=datetime.now(UTC))
    desk.rows("INSERT INTO integration_states (provider_key, paused_at) VALUES ('schwab', now())")

    assert desk.runtime.run(claims.claim_refresh_due(desk.runtime, datetime.now(UTC), tick_s=15)) == []
