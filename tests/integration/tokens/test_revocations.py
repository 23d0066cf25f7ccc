"""A grant that nothing here uses any more is ended at its provider, however long that takes."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from tests.factories import make_user
from tests.integration.tokens.conftest import Desk, MakeDesk
from tests.support.environment import new_keys
from tests.support.scripted import answer
from worker.errors import NotFound, ReauthRequired, Refused, Transient
from worker.integrations.kit.base import TokenAnswer
from worker.services import keys, upkeep
from worker.services.linking import begin, complete, end, revocation

WAITING = "SELECT reason, attempts, error, due_at > now() AS later FROM revocations"


def _user(desk: Desk) -> UUID:
    with desk.runtime.transaction() as session:
        return make_user(session).id


def _link(desk: Desk, user: UUID, given: TokenAnswer) -> UUID:
    begun = desk.runtime.run(begin.begin_link(desk.runtime, "schwab", user, "Main"))
    callback = f"https://127.0.0.1?code=c&state={begun.url.partition('state=')[2]}"
    desk.schwab.script.insert(0, given)
    return desk.runtime.run(complete.complete_link(desk.runtime, callback, holder=begun.holder))


def _replace(desk: Desk, *, refused: Exception | None = None) -> tuple[UUID, UUID]:
    """Links one login and then another under the same alias; the provider's user, and the provider."""
    user = _user(desk)
    _link(desk, user, answer(1, external_id="item-1"))
    if refused is not None:
        desk.schwab.script = [refused]
    return user, _link(desk, user, answer(2, external_id="item-2"))


def _reap(desk: Desk) -> dict[str, int]:
    desk.rows("UPDATE revocations SET due_at = now()")
    return desk.runtime.run(upkeep.reap(desk.runtime, datetime.now(UTC)))


@pytest.mark.deep
def test_login_that_is_replaced_is_ended_at_its_provider(desk: Desk) -> None:
    _, id_ = _replace(desk)

    assert desk.schwab.revoked == [("access-1", "refresh-1")]
    assert desk.plain(id_, "access") == "access-2"
    assert desk.rows(WAITING) == []
    assert sorted(desk.audit(id_)) == ["grant_revoked", "linked", "linked", "login_replaced"]


@pytest.mark.deep
def test_login_that_could_not_be_ended_is_kept_until_it_can_be(desk: Desk) -> None:
    _, id_ = _replace(desk, refused=Transient("http_503"))
    assert desk.rows(WAITING) == [{"reason": "replaced", "attempts": 1, "error": "transient (http_503)", "later": True}]
    desk.schwab.script = [Transient("http_503")]
    assert _reap(desk)["revoked_grants"] == 0

    assert _reap(desk)["revoked_grants"] == 1

    assert desk.schwab.revoked == [("access-1", "refresh-1")] * 3
    assert desk.rows(WAITING) == []
    assert desk.audit(id_)[-1] == "grant_revoked"


@pytest.mark.deep
def test_login_that_is_not_due_is_left_alone(desk: Desk) -> None:
    _replace(desk, refused=Transient("http_503"))

    desk.runtime.run(upkeep.reap(desk.runtime, datetime.now(UTC)))

    assert len(desk.schwab.revoked) == 1


@pytest.mark.deep
def test_login_that_its_provider_has_forgotten_is_ended(desk: Desk) -> None:
    _replace(desk, refused=ReauthRequired("ITEM_NOT_FOUND"))

    assert desk.rows(WAITING) == []


@pytest.mark.deep
def test_grants_for_which_there_is_no_time_are_not_counted_as_tried(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        _replace(desk, refused=Transient("http_503"))
        desk.rows("UPDATE providers SET external_id = NULL")
        desk.rows("UPDATE revocations SET external_id = id::text")  # each of a login of its own
    tried = len(desk.schwab.revoked)
    monkeypatch.setattr(revocation, "elapsed", lambda: 61.0 * (len(desk.schwab.revoked) - tried))

    assert _reap(desk)["revoked_grants"] == 1

    assert len(desk.schwab.revoked) == tried + 1
    assert [row["attempts"] for row in desk.rows(WAITING)] == [1, 1]
    assert _claimable(desk) == 2


def _claimable(desk: Desk) -> int:
    return len(desk.rows("SELECT 1 FROM revocations WHERE due_at <= clock_timestamp()"))


@pytest.mark.deep
def test_ciphertexts_of_what_waits_are_never_plain(desk: Desk) -> None:
    _replace(desk, refused=Transient("http_503"))

    (row,) = desk.rows("SELECT * FROM revocations")

    assert not any(plain in str(value) for plain in ("access-1", "refresh-1") for value in row.values())


@pytest.mark.deep
def test_login_that_is_linked_again_is_not_ended(desk: Desk) -> None:
    user, _ = _replace(desk, refused=Transient("http_503"))

    _link(desk, user, answer(3, external_id="item-1"))
    _reap(desk)

    assert ("access-1", "refresh-1") not in desk.schwab.revoked[1:]
    assert desk.schwab.revoked[1:] == [("access-2", "refresh-2")]  # which this one has replaced in its turn


@pytest.mark.deep
def test_same_login_linked_anew_is_not_ended(desk: Desk) -> None:
    user = _user(desk)
    for number in (1, 2):
        _link(desk, user, answer(number, external_id="item-1"))

    assert desk.schwab.revoked == []
    assert desk.rows(WAITING) == []


def test_unlinking_that_the_provider_does_not_answer_is_made_up_for(desk: Desk) -> None:
    id_ = _link(desk, _user(desk), answer(1))
    desk.schwab.script = [Transient("http_503")]
    assert desk.runtime.run(end.unlink(desk.runtime, id_)) is False
    assert [row["reason"] for row in desk.rows(WAITING)] == ["unlinked"]

    assert _reap(desk)["revoked_grants"] == 1

    assert desk.schwab.revoked == [("access-1", "refresh-1")] * 2
    assert desk.audit(id_) == ["linked", "unlinked", "grant_revoked"]


@pytest.mark.deep
def test_grant_that_was_never_stored_is_ended_too(desk: Desk) -> None:
    user = _user(desk)

    def exchange(_: str) -> TokenAnswer:
        desk.rows("DELETE FROM users WHERE id = :id", id=user)
        desk.schwab.script = [Transient("http_503")]
        return answer(3)

    begun = desk.runtime.run(begin.begin_link(desk.runtime, "schwab", user, "Main"))
    desk.schwab.script = [exchange]
    callback = f"https://127.0.0.1?code=c&state={begun.url.partition('state=')[2]}"
    with pytest.raises(NotFound):
        desk.runtime.run(complete.complete_link(desk.runtime, callback, holder=begun.holder))
    assert [row["reason"] for row in desk.rows(WAITING)] == ["abandoned"]

    assert _reap(desk)["revoked_grants"] == 1
    assert desk.schwab.revoked == [("access-3", "refresh-3")] * 2


def test_grant_waits_while_its_integration_is_not_enabled(desk: Desk) -> None:
    _replace(desk, refused=Transient("http_503"))
    integrations = desk.runtime.integrations
    schwab = integrations.pop("schwab")  # type: ignore[attr-defined]

    assert _reap(desk)["revoked_grants"] == 0
    assert "INTEGRATIONS" in desk.rows(WAITING)[0]["error"]
    integrations["schwab"] = schwab  # type: ignore[index]
    assert _reap(desk)["revoked_grants"] == 1


@pytest.mark.deep
def test_waiting_grants_are_written_anew_with_the_new_key_and_keep_the_old_one_until_then(make_desk: MakeDesk) -> None:
    old, new = new_keys("k1"), new_keys("k2")
    _replace(make_desk(encryption_keys=old), refused=Transient("http_503"))
    desk = make_desk(encryption_keys=f"{new},{old}")
    with pytest.raises(Refused, match="cannot be retired"):
        desk.runtime.run(keys.require_retirable(desk.runtime, "k1"))

    done = desk.runtime.run(keys.reencrypt(desk.runtime))

    assert (done.done, done.unreadable, done.left) == (2, [], 0)
    desk.runtime.run(keys.require_retirable(desk.runtime, "k1"))
    after = make_desk(encryption_keys=new)
    assert _reap(after)["revoked_grants"] == 1
    assert after.schwab.revoked == [("access-1", "refresh-1")]
