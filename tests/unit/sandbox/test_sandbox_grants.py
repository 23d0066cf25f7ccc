"""Rotation, reuse and death of grants."""

from __future__ import annotations

import pytest

from worker.sandbox.clock import Clock
from worker.sandbox.grants import DeadGrantError, Grants, Policy

pytestmark = pytest.mark.unit


def make(**policy: object) -> Grants:
    grants = Grants("schwab", 1, Clock())
    grants.policy = Policy(**policy)  # type: ignore[arg-type]
    return grants


def test_refresh_rotates_and_kills_nothing_that_is_current() -> None:
    grants = make()
    _, first = grants.issue("a")
    _, second = grants.refresh(first.refresh_token or "")
    _, third = grants.refresh(second.refresh_token or "")
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert grants.admits(third.access_token)


def test_strict_reuse_revokes_the_grant() -> None:
    grants = make(reuse="strict")
    _, first = grants.issue("a")
    _, second = grants.refresh(first.refresh_token or "")
    with pytest.raises(DeadGrantError, match="reused"):
        grants.refresh(first.refresh_token or "")
    with pytest.raises(DeadGrantError, match="reused"):
        grants.refresh(second.refresh_token or "")
    assert not grants.admits(second.access_token)


def test_grace_accepts_the_previous_token_once_when_the_successor_was_lost() -> None:
    grants = make(grace_times=1)
    _, first = grants.issue("a")
    grants.refresh(first.refresh_token or "")
    _, again = grants.refresh(first.refresh_token or "")
    assert grants.admits(again.access_token)
    with pytest.raises(DeadGrantError, match="reused"):
        grants.refresh(first.refresh_token or "")


def test_grace_counts_each_lost_answer() -> None:
    grants = make(grace_times=2)
    _, first = grants.issue("a")
    for _ in range(3):
        _, pair = grants.refresh(first.refresh_token or "")
    assert grants.admits(pair.access_token)
    with pytest.raises(DeadGrantError):
        grants.refresh(first.refresh_token or "")


def test_grace_ends_when_the_successors_access_token_was_used() -> None:
    grants = make(grace_times=5)
    _, first = grants.issue("a")
    _, second = grants.refresh(first.refresh_token or "")
    assert grants.admits(second.access_token)
    with pytest.raises(DeadGrantError, match="reused"):
        grants.refresh(first.refresh_token or "")


def test_grace_ends_with_its_seconds() -> None:
    grants = make(grace_times=5, grace_seconds=10)
    clock = grants._clock
    _, first = grants.issue("a")
    grants.refresh(first.refresh_token or "")
    clock.offset += 11
    with pytest.raises(DeadGrantError, match="reused"):
        grants.refresh(first.refresh_token or "")


def test_grant_ends_after_its_days_however_often_it_was_refreshed() -> None:
    grants = make(grant_seconds=100)
    _, pair = grants.issue("a")
    grants._clock.offset += 99
    _, pair = grants.refresh(pair.refresh_token or "")
    assert grants.admits(pair.access_token)
    grants._clock.offset += 1
    assert not grants.admits(pair.access_token)
    with pytest.raises(DeadGrantError, match="expired"):
        grants.refresh(pair.refresh_token or "")


def test_new_login_supersedes_the_earlier_grant() -> None:
    grants = make()
    _, earlier = grants.issue("a")
    _, newer = grants.issue("a")
    with pytest.raises(DeadGrantError, match="superseded"):
        grants.refresh(earlier.refresh_token or "")
    assert grants.admits(newer.access_token)


def test_access_token_ends_with_its_seconds_while_the_grant_lives() -> None:
    grants = make(access_seconds=60)
    _, pair = grants.issue("a")
    grants._clock.offset += 60
    assert not grants.admits(pair.access_token)
    _, pair = grants.refresh(pair.refresh_token or "")
    assert grants.admits(pair.access_token)


def test_static_rotation_keeps_the_token_and_omit_leaves_it_out() -> None:
    static, omit = make(rotation="static"), make(rotation="omit")
    _, first = static.issue("a")
    assert static.refresh(first.refresh_token or "")[1].refresh_token == first.refresh_token
    _, first = omit.issue("a")
    assert omit.refresh(first.refresh_token or "")[1].refresh_token is None
    assert omit.refresh(first.refresh_token or "")[1].refresh_token is None


def test_unknown_token_is_a_dead_grant() -> None:
    with pytest.raises(DeadGrantError, match="unknown"):
        make().refresh("never handed out")
