"""How an integration calls: errors by the members of an answer, ids in paths, waits for used up accounts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from tests.unit.integrations.scripts import ACCESS_TOKEN, all_pages, provider, sync_request
from worker.errors import BadPayload, Forbidden, ProviderError, RateLimited, Scope
from worker.integrations.kit import moments
from worker.integrations.kit.base import Caller, Page
from worker.integrations.kit.calls import Calls
from worker.integrations.kit.consent import Consent
from worker.integrations.kit.contract.subject import scripted_api
from worker.integrations.kit.limits import Limit
from worker.integrations.kit.taxonomy import Rule
from worker.integrations.kit.transport import Answer


class Toy(Calls):
    error_rules = (Rule(Forbidden, code="LOCKED"), Rule(Forbidden, code="3003", text="disabled"))
    error_code, error_text = ("error", "code"), ("detail", "message")
    limits = (Limit("x-left-", Scope.APP),)


def error(status: int, body: Any, **headers: str) -> ProviderError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Toy().error_of(Answer(status, headers, content), Toy.error_rules)


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        ({"error": "LOCKED"}, "forbidden", "LOCKED"),
        ({"error": None, "code": "LOCKED"}, "forbidden", "LOCKED"),
        ({"code": 3003, "detail": "", "message": "is Disabled now"}, "forbidden", "3003"),
        ({"code": 422}, "bad_request", "http_422"),
        ({"error": ["LOCKED"], "code": True}, "bad_request", "http_422"),
        ([{"error": "LOCKED"}], "bad_request", "http_422"),
        (b"<html>", "bad_request", "http_422"),
        (b"\xff", "bad_request", "http_422"),
        (b"[" * 10_000, "bad_request", "http_422"),
    ],
)
def test_error_is_told_by_the_members_that_are_declared(body: Any, kind: str, reason: str) -> None:
    found = error(422, body)

    assert (found.kind, found.reason) == (kind, reason)


def test_limit_that_was_reached_gives_the_wait_and_says_what_it_counts() -> None:
    headers = {"x-left-remaining": "0", "x-left-reset": "9", "retry-after": "4"}

    found = error(429, {}, **headers)

    assert (found.kind, found.scope, found.retry_after) == ("rate_limited", Scope.APP, timedelta(seconds=9))


def test_ids_in_a_path_are_percent_encoded_and_braces_in_other_paths_stay() -> None:
    api, _ = scripted_api("toy", lambda _: httpx.Response(200), gate=None, max_bytes=99)

    assert api.endpoint("one", "GET", "/a/{}/b/{}", "x/y?z", "{}").url.endswith("/a/x%2Fy%3Fz/b/%7B%7D")
    assert api.endpoint("one", "GET", "/a?b={c}").url.endswith(("/a?b={c}", "/a?b=%7Bc%7D"))


def test_json_is_sent_once_and_an_unwanted_answer_is_an_error() -> None:
    toy = Toy()
    toy.api, sent = scripted_api(
        "toy", lambda _: httpx.Response(403, json={"error": "LOCKED"}), gate=None, max_bytes=99
    )

    with pytest.raises(Forbidden):
        asyncio.run(toy.post(Caller(), toy.api.endpoint("new", "POST", "/new"), {"x-key": "1"}, {"name": "ä"}))

    (request,) = sent
    assert json.loads(request.content) == {"name": "ä"}
    assert (request.headers["content-type"], request.headers["x-key"]) == ("application/json", "1")


async def limited() -> AsyncIterator[Page]:
    yield Page(feed="account:a")
    raise RateLimited("day_is_used_up", scope=Scope.ACCOUNT)


def test_account_whose_calls_are_used_up_is_a_problem_unless_the_caller_collects_it() -> None:
    waits: list[RateLimited] = []

    collected = asyncio.run(all_pages(Toy().part(limited(), account_key="a", waits=waits)))
    told = asyncio.run(all_pages(Toy().part(limited(), account_key="a")))

    assert [page.problems for page in collected] == [()]
    assert [(one.account_key, one.reason) for one in waits] == [("a", "day_is_used_up")]
    assert [one.account_key for page in told for one in page.problems if isinstance(one, RateLimited)] == ["a"]


async def read() -> AsyncIterator[Page]:
    yield Page(feed="account:b")


def parts_read(*, done: frozenset[str] = frozenset(), **more: Any) -> tuple[list[Page], RateLimited | None]:
    """The pages of three parts of two accounts, and the error that ends the reading if there is one."""
    found: list[Page] = []

    async def go() -> None:
        parts = {"a": (limited(), read()), "b": (read(),)}
        async for page in Toy().parts_of_accounts(sync_request(done=done), parts, **more):
            found.append(page)  # noqa: PERF401 - what came before the error counts, too

    try:
        asyncio.run(go())
    except RateLimited as error:
        return found, error
    return found, None


def test_used_up_account_stops_the_login_when_all_accounts_are_read_if_calls_are_counted_by_day() -> None:
    found, error = parts_read(day_ends_in=timedelta(hours=3))

    assert [page.feed for page in found] == ["account:a", "account:b", "account:b"]
    assert [page.problems for page in found] == [()] * 3
    assert error is not None
    assert (error.reason, error.scope, error.retry_after) == ("day_is_used_up", Scope.PROVIDER, timedelta(hours=3))


def test_used_up_account_is_a_problem_of_the_account_if_calls_are_not_counted_by_day() -> None:
    found, error = parts_read()

    assert error is None
    assert [(one.account_key, one.reason) for page in found for one in page.problems] == [("a", "day_is_used_up")]
    assert len(found) == 4


def test_account_that_an_earlier_run_has_read_is_left_out() -> None:
    found, error = parts_read(done=frozenset({"account:a"}), day_ends_in=timedelta(hours=3))

    assert ([page.feed for page in found], error) == (["account:b"], None)


@pytest.mark.parametrize("url", ["https://bank.test/x", "http://127.0.0.1:1/toy/start"])
def test_address_for_consent_is_https_or_below_the_base_url(url: str) -> None:
    consent = Consent()
    consent.settings = SimpleNamespace(base_url="http://127.0.0.1:1/toy")

    assert consent.consent_address(url) == url
    for other in (url.removeprefix("https:").removeprefix("http:"), "javascript:x", "http://elsewhere.test/", ""):
        with pytest.raises(BadPayload, match="consent_address"):
            consent.consent_address(other)


@pytest.mark.parametrize("key", ["plaid", "schwab"])
def test_accounts_of_a_new_grant_are_those_of_the_first_page(key: str) -> None:
    given = provider(key)

    listed = asyncio.run(given.integration.list_accounts(Caller(), access_token=ACCESS_TOKEN))

    assert len(listed) == 2
    assert not [one for one in given.requests if "transactions" in one.url.path]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-04-01T02:00:00+02:00", datetime(2025, 4, 1, tzinfo=UTC)),
        ("soon", None),
        ("0001-01-01", None),
        ("", None),
        (None, None),
    ],
)
def test_time_that_need_not_be_known_is_none_if_it_cannot_be_read(text: str | None, moment: datetime | None) -> None:
    assert moments.of_text_or_none(text) == moment


@pytest.mark.parametrize(
    ("now", "zone", "hours"),
    [
        ("2025-03-29T22:05:00+00:00", "Europe/Helsinki", 23),  # the clocks go forward in that night
        ("2025-10-25T21:05:00+00:00", "Europe/Helsinki", 25),
        ("2025-07-10T00:05:00+00:00", "UTC", 24),
    ],
)
def test_next_day_begins_by_the_clock_of_its_zone(now: str, zone: str, hours: int) -> None:
    moment = datetime.fromisoformat(now)

    assert (moment + moments.until_next_day(moment, zone)).timestamp() == moment.timestamp() + hours * 3600
