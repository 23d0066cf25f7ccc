"""Which requests go wrong, and what a changed answer looks like byte by byte."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from worker.sandbox.faults import Fault, Faults, literal_answer, reshape
from worker.sandbox.quotas import Quota, Quotas
from worker.sandbox.request_log import RequestLog
from worker.sandbox.wire import Answer, Request, basic_credentials

pytestmark = pytest.mark.unit

REQUEST = Request("POST", "/transactions/sync", "", {}, b'{"cursor":"c1"}')


def hits(faults: Faults, count: int, path: str = "/x", login: str = "a", kind: str = "data") -> list[bool]:
    return [faults.strike("plaid", path, login, kind)[1] is not None for _ in range(count)]


def test_rule_skips_then_applies_its_number_of_times() -> None:
    faults = Faults(1)
    faults.arm(Fault(do="reset", skip=2, times=2))
    assert hits(faults, 6) == [False, False, True, True, False, False]


def test_rule_matches_profile_path_login_and_kind() -> None:
    faults = Faults(1)
    faults.arm(Fault(do="reset", profile="plaid", path="/accounts/*", login="a", kind="data", times=None))
    assert hits(faults, 1, "/accounts/get") == [True]
    assert hits(faults, 1, "/item/get") == [False]
    assert hits(faults, 1, "/accounts/get", login="b") == [False]
    assert hits(faults, 1, "/accounts/get", kind="refresh") == [False]


def test_delays_add_up_and_the_first_action_wins() -> None:
    faults = Faults(1)
    faults.arm(Fault(latency_ms=5, times=None))
    faults.arm(Fault(do="hang"))
    faults.arm(Fault(do="reset", latency_ms=7))
    delay, fault = faults.strike("plaid", "/x", None, "data")
    assert (delay, fault and fault.do) == (5, "hang")
    delay, fault = faults.strike("plaid", "/x", None, "data")
    assert (delay, fault and fault.do) == (12, "reset")


def test_chance_repeats_with_the_seed() -> None:
    drawn = []
    for _ in range(2):
        faults = Faults(7)
        faults.arm(Fault(do="reset", probability=0.3, times=None))
        drawn.append(hits(faults, 200))
    assert drawn[0] == drawn[1]
    assert 30 < sum(drawn[0]) < 90


def test_edit_says_what_json_libraries_will_not() -> None:
    fault = Fault(
        do="edit",
        set={"amount": "NaN", "next_cursor": "$request.cursor", "has_more": "true"},
        drop=["gone"],
        append={"added": ['{"id":1e400}']},
        append_base64={"added": [base64.b64encode(b'{"n":"\xff"}').decode()]},
    )
    answer = Answer(200, b'{"amount":1.10,"gone":1,"added":[{"id":2.50}],"next_cursor":"c2"}')
    body = reshape(fault, answer, REQUEST).body
    assert body == b'{"amount":NaN,"added":[{"id":2.50},{"id":1e400},{"n":"\xff"}],"next_cursor":"c1","has_more":true}'


def test_edit_appends_to_bare_and_to_empty_arrays() -> None:
    fault = Fault(do="edit", append={"": ["{}"]})
    assert reshape(fault, Answer(200, b"[1]"), REQUEST).body == b"[1,{}]"
    assert reshape(fault, Answer(200, b"[]"), REQUEST).body == b"[{}]"


def test_truncate_and_pad_change_the_length_only() -> None:
    answer = Answer(200, b'{"a":1}')
    assert reshape(Fault(do="truncate", bytes=3), answer, REQUEST).body == b'{"a'
    assert reshape(Fault(do="truncate"), answer, REQUEST).body == b'{"a'
    padded = reshape(Fault(do="pad", bytes=100), answer, REQUEST).body
    assert (len(padded), json.loads(padded)) == (100, {"a": 1})


def test_literal_answers_and_redirects() -> None:
    html = literal_answer(Fault(do="answer", status=200, body="<html>", headers={"Content-Type": "text/html"}))
    assert (html.status, html.body, html.headers) == (200, b"<html>", [(b"content-type", b"text/html")])
    away = literal_answer(Fault(do="redirect", location="http://127.0.0.2/"))
    assert (away.status, away.headers) == (302, [(b"location", b"http://127.0.0.2/")])


def test_rule_with_an_unknown_member_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="tiems"):
        msgspec.json.decode(b'{"do":"reset","tiems":3}', type=Fault)


def test_quota_refuses_until_its_window_has_moved_on() -> None:
    quotas = Quotas()
    quotas.set([Quota(limit=2, seconds=60)])
    assert [quotas.exceeded("schwab", "/x", "a", now) for now in (0.0, 10.0, 15.0)] == [None, None, 45.0]
    assert quotas.exceeded("schwab", "/x", "a", 60.0) is None
    assert quotas.exceeded("schwab", "/x", "a", 61.0) == 9.0


def test_quota_per_login_counts_each_login() -> None:
    quotas = Quotas()
    quotas.set([Quota(limit=1, seconds=60, scope="login", path="/accounts/*")])
    assert quotas.exceeded("plaid", "/accounts/get", "a", 0) is None
    assert quotas.exceeded("plaid", "/accounts/get", "b", 0) is None
    assert quotas.exceeded("plaid", "/accounts/get", "a", 1) == 59
    assert quotas.exceeded("plaid", "/item/get", "a", 1) is None


def refresh(log: RequestLog, grant: str, start: float, end: float | None, token: str = "t") -> int:
    entry = log.open(start, "POST", "/v1/oauth/token", "schwab")
    entry.kind, entry.grant, entry.token, entry.answered = "refresh", grant, token, end
    return entry.number


def test_log_finds_overlaps_of_one_grant_only() -> None:
    log = RequestLog()
    first = refresh(log, "g", 0, 10)
    refresh(log, "other", 1, 2)
    second = refresh(log, "g", 3, 4)
    third = refresh(log, "g", 9, 12)
    refresh(log, "g", 12, 13)
    assert [(o.first, o.second) for o in log.overlaps()] == [(first, second), (first, third)]


def test_log_counts_a_refresh_without_answer_as_still_in_flight() -> None:
    log = RequestLog()
    first, second = refresh(log, "g", 0, None), refresh(log, "g", 100, 101)
    assert [(o.first, o.second) for o in log.overlaps()] == [(first, second)]


def test_log_names_tokens_presented_again() -> None:
    log = RequestLog()
    for token in ("t1", "t2", "t2", "t3"):
        refresh(log, "g", 0, 0, token)
    assert log.presented_again() == {"g": {"t2": 2}}


@pytest.mark.parametrize("header", ["", "Bearer x", "Basic !!", "Basic bm9jb2xvbg==", "Basic /w=="])
def test_malformed_basic_credentials_are_none(header: str) -> None:
    assert basic_credentials(header) is None
