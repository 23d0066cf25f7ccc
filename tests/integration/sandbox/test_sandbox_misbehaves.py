"""Faults, barriers and the request log, over real connections."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest

from tests.support.sandbox import SandboxAdmin, SandboxProcess
from tests.support.waiting import PATIENCE_S

pytestmark = pytest.mark.deep

BASIC = ("sandbox-app", "sandbox-secret")
TOKEN = "/schwab/v1/oauth/token"
ACCOUNTS = "/schwab/trader/v1/accounts"

Refresh = Callable[..., httpx.Response]


@pytest.fixture
def client(sandbox_process: SandboxProcess, sandbox: SandboxAdmin) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=sandbox_process.base_url, timeout=5, trust_env=False) as opened:
        yield opened


@pytest.fixture
def refresh(client: httpx.Client) -> Refresh:
    def send(token: str, timeout: float = 5) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token}
        return client.post(TOKEN, auth=BASIC, data=form, timeout=timeout)

    return send


@pytest.fixture
def background() -> Iterator[Callable[..., Future[Any]]]:
    with ThreadPoolExecutor(4) as pool:
        yield pool.submit


def refresh_token(sandbox: SandboxAdmin, login: str = "schwab-1") -> str:
    return sandbox.mint(login)[0].refresh_token or ""


def eventually(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.01)
    return True


def test_reset_before_leaves_the_token_and_reset_after_rotates_it(sandbox: SandboxAdmin, refresh: Refresh) -> None:
    token = refresh_token(sandbox)
    sandbox.set_policy("schwab", reuse="strict")
    sandbox.inject("reset", kind="refresh")
    with pytest.raises(httpx.TransportError):
        refresh(token)
    token = refresh(token).json()["refresh_token"]
    sandbox.inject("reset", kind="refresh", when="after")
    with pytest.raises(httpx.TransportError):
        refresh(token)
    assert refresh(token).status_code == 400
    assert [entry["fault"] for entry in sandbox.refreshes()] == ["reset", None, "reset", None]


def test_cut_breaks_off_in_the_middle_of_the_body_after_rotation(sandbox: SandboxAdmin, refresh: Refresh) -> None:
    token = refresh_token(sandbox)
    sandbox.inject("cut", kind="refresh")
    with pytest.raises(httpx.TransportError):
        refresh(token)
    again = refresh(token)
    assert again.status_code == 200
    assert sandbox.tokens_presented_again()["schwab-1.1"] == {sandbox.refreshes()[0]["token"]: 2}


def test_error_after_the_work_hides_a_rotation(sandbox: SandboxAdmin, refresh: Refresh) -> None:
    token = refresh_token(sandbox)
    sandbox.set_policy("schwab", reuse="strict", dead_grant="invalid_grant")
    sandbox.inject("answer", status=503, body="<html>busy</html>", when="after")
    assert refresh(token).status_code == 503
    assert refresh(token).json()["error"] == "invalid_grant"


@pytest.mark.parametrize(
    ("changes", "key", "text"),
    [
        ({"set": {"expires_in": "-5"}}, "expires_in", "-5"),
        ({"set": {"expires_in": '"3600"'}}, "expires_in", '"3600"'),
        ({"set": {"expires_in": "1e18"}}, "expires_in", "1e18"),
        ({"set": {"access_token": '""'}}, "access_token", '""'),
        ({"set": {"token_type": '"mac"'}}, "token_type", '"mac"'),
        ({"set": {"access_token": '"a\\r\\nb\\u0000"'}}, "access_token", '"a\\r\\nb\\u0000"'),
        ({"set": {"error": '"invalid_grant"'}}, "error", '"invalid_grant"'),
    ],
)
def test_token_answers_can_say_anything(
    sandbox: SandboxAdmin, refresh: Refresh, changes: dict[str, Any], key: str, text: str
) -> None:
    token = refresh_token(sandbox)
    sandbox.inject("edit", kind="refresh", **changes)
    answer = refresh(token)
    assert (answer.status_code, f'"{key}":{text}' in answer.text) == (200, True)


def test_token_answers_can_leave_things_out_or_be_no_object(sandbox: SandboxAdmin, refresh: Refresh) -> None:
    token = refresh_token(sandbox)
    sandbox.inject("edit", kind="refresh", drop=["refresh_token", "expires_in"])
    assert set(refresh(token).json()) == {"token_type", "scope", "access_token"}
    for body in ("null", "[]", "<html></html>", '{"access_token":"x'):
        sandbox.inject("answer", status=200, body=body)
        assert refresh(token).text == body


@pytest.mark.parametrize("given", ["7", "3600", "1000000000", "soon"])
def test_rate_limit_says_when_verbatim(sandbox: SandboxAdmin, client: httpx.Client, given: str) -> None:
    sandbox.inject("rate_limit", retry_after=given)
    answer = client.get(ACCOUNTS)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, given)


def test_rate_limit_says_when_as_a_date(sandbox: SandboxAdmin, client: httpx.Client) -> None:
    sandbox.inject("rate_limit", retry_after="+90", profile="plaid")
    answer = client.post("/plaid/transactions/sync", json={})
    ahead = parsedate_to_datetime(answer.headers["retry-after"]).timestamp() - time.time()
    assert (answer.json()["error_code"], 85 < ahead < 95) == ("TRANSACTIONS_SYNC_LIMIT", True)


def test_quota_refuses_what_is_over_it(sandbox: SandboxAdmin, client: httpx.Client) -> None:
    sandbox.set_quotas({"profile": "schwab", "limit": 2, "seconds": 60})
    assert [client.get(ACCOUNTS).status_code for _ in range(3)] == [401, 401, 429]


def test_redirect_leads_elsewhere(sandbox: SandboxAdmin, client: httpx.Client) -> None:
    sandbox.inject("redirect", location="http://127.0.0.2:9/v1/oauth/token")
    answer = client.post(TOKEN)
    assert (answer.status_code, answer.headers["location"]) == (302, "http://127.0.0.2:9/v1/oauth/token")


def test_oversized_and_truncated_bodies_are_complete_http(sandbox: SandboxAdmin, client: httpx.Client) -> None:
    sandbox.inject("pad", bytes=3_000_000)
    assert len(client.get(ACCOUNTS).content) == 3_000_000
    sandbox.inject("truncate", bytes=10)
    assert len(client.get(ACCOUNTS).content) == 10


def test_hang_ends_in_the_log_when_the_client_gives_up(sandbox: SandboxAdmin, client: httpx.Client) -> None:
    sandbox.inject("hang")
    with pytest.raises(httpx.ReadTimeout):
        client.get(ACCOUNTS, timeout=httpx.Timeout(60, read=0.2))
    assert eventually(lambda: [entry["gone"] for entry in sandbox.log()] == [True])


def test_drip_sends_byte_by_byte(sandbox: SandboxAdmin, client: httpx.Client) -> None:
    sandbox.inject("drip", bytes_per_second=200)
    began = time.monotonic()
    answer = client.get(ACCOUNTS)
    assert json.loads(answer.text)["errors"]
    assert time.monotonic() - began > len(answer.content) / 200 * 0.8


def test_slow_provider_rotates_though_its_client_gave_up(sandbox: SandboxAdmin, refresh: Refresh) -> None:
    token = refresh_token(sandbox)
    sandbox.set_policy("schwab", reuse="strict")
    sandbox.inject("delay", kind="refresh", latency_ms=5000)
    with pytest.raises(httpx.ReadTimeout):
        refresh(token, 0.2)
    assert eventually(lambda: sandbox.refreshes()[-1]["gone"])
    assert refresh(token).status_code == 400
    assert sandbox.overlapping_refreshes() == []


def test_barrier_after_rotation_holds_the_answer(
    sandbox: SandboxAdmin, refresh: Refresh, background: Callable[..., Future[httpx.Response]]
) -> None:
    token = refresh_token(sandbox)
    with sandbox.paused_after_rotation(login="schwab-1") as barrier:
        answer = background(refresh, token)
        assert barrier.wait_for_arrivals() == 1
        assert not answer.done()
        assert sandbox.refreshes()[-1]["answered"] is None
    assert answer.result(5).status_code == 200


def test_barrier_before_rotation_leaves_the_token_of_a_client_that_dies(
    sandbox: SandboxAdmin, refresh: Refresh, background: Callable[..., Future[httpx.Response]]
) -> None:
    token = refresh_token(sandbox)
    sandbox.set_policy("schwab", reuse="strict")
    with sandbox.paused_before_rotation() as barrier:
        answer = background(refresh, token, 0.3)
        barrier.wait_for_arrivals()
        assert isinstance(answer.exception(5), httpx.ReadTimeout)
        assert eventually(lambda: barrier.waiting() == 0)
    assert refresh(token).status_code == 200
    assert sandbox.overlapping_refreshes() == []


def test_barrier_in_mid_body_sends_half_and_then_the_rest(
    sandbox: SandboxAdmin, client: httpx.Client, background: Callable[..., Future[httpx.Response]]
) -> None:
    with sandbox.paused_in_mid_body(path="/accounts") as barrier:
        answer = background(client.get, ACCOUNTS)
        barrier.wait_for_arrivals()
        assert not answer.done()
    assert answer.result(5).json()["errors"]


def test_two_refreshes_at_once_are_seen_as_an_overlap(
    sandbox: SandboxAdmin, refresh: Refresh, background: Callable[..., Future[httpx.Response]]
) -> None:
    token = refresh_token(sandbox)
    with sandbox.paused_before_rotation(times=2) as barrier:
        answers = [background(refresh, token) for _ in range(2)]
        barrier.wait_for_arrivals(2)
    assert sorted(answer.result(5).status_code for answer in answers) == [200, 200]
    assert [overlap["grant"] for overlap in sandbox.overlapping_refreshes()] == ["schwab-1.1"]


def test_admin_refuses_without_its_token_and_tells_what_is_wrong(
    sandbox_process: SandboxProcess, client: httpx.Client, sandbox: SandboxAdmin
) -> None:
    assert client.post("/admin/reset", json={}).status_code == 403
    with pytest.raises(AssertionError, match="no login 'nobody'"):
        sandbox.books("nobody")
    with pytest.raises(AssertionError, match="422"):
        sandbox.inject("explode")


def test_log_holds_no_token(sandbox: SandboxAdmin, refresh: Refresh) -> None:
    (minted,) = sandbox.mint("schwab-1")
    answer = refresh(minted.refresh_token or "").json()
    seen = json.dumps(sandbox.log())
    assert not any(
        token in seen for token in (minted.refresh_token, minted.access_token, *answer.values()) if len(str(token)) > 20
    )
