"""SimpleFIN's answers and claims: what a stand-in in good order would not do."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from worker.errors import (
    BadRequest,
    Forbidden,
    InstitutionDown,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    ReauthRequired,
    Scope,
    Unsent,
)
from worker.integrations.kit.base import Caller, Page, SyncRequest, TokenAnswer
from worker.integrations.kit.contract.subject import BASE_URL, every, rows_of, scripted_api
from worker.integrations.simplefin.integration import Simplefin, SimplefinSettings
from worker.models.records import TransactionRecord
from worker.models.vocabulary import AccountType, TransactionStatus

NOW = datetime(2025, 3, 10, 12, 0, tzinfo=UTC)
TODAY = NOW.date()
ACCESS_URL = "https://ada:SECRETWORD-1@bridge.simplefin.org/simplefin"
Handler = Callable[[httpx.Request], httpx.Response]


def seconds(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def row(id_: str | None, day: date = TODAY, amount: str = "-5.00", **more: Any) -> dict[str, Any]:
    return {"id": id_, "posted": seconds(day), "amount": amount, "description": "Bait Shop", **more}


def account(id_: str = "A", *rows: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {"id": id_, "conn_id": "CON-0", "name": f"Checking {id_}", "currency": "USD", "balance": "10.50"}
    return {**given, "balance-date": seconds(TODAY), "transactions": list(rows), **more}


@dataclass
class Bridge:
    """A server with these accounts; `errors` is its errlist, or v1's texts."""

    accounts: list[dict[str, Any]]
    errlist: list[dict[str, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    longest: int = 90
    at_most: int | None = None
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        asked = request.url.params
        first, last = int(asked["start-date"]), int(asked["end-date"])
        errlist = list(self.errlist)
        if last - first > self.longest * 86_400:
            if self.at_most is not None:
                return httpx.Response(400, text="too long")
            first = last - self.longest * 86_400
            errlist.append(
                {"code": "gen.api", "msg": f"Requested date range exceeds limit of {self.longest} days and was capped."}
            )
        only = asked.get_list("account")
        listed = []
        for one in self.accounts:
            if only and one["id"] not in only:
                continue
            rows = [r for r in one["transactions"] if not r.get("posted") or first <= r["posted"] < last]
            listed.append({**one, "transactions": rows})
        connections = [{"conn_id": f"CON-{n}", "name": f"Bank {n}"} for n in range(2)]
        body = {"errors": self.errors, "errlist": errlist, "connections": connections, "accounts": listed}
        return httpx.Response(200, json=body)


def connected(handler: Handler, **settings: Any) -> tuple[Simplefin, list[httpx.Request]]:
    api, requests = scripted_api("simplefin", handler, gate=None, max_bytes=1 << 20)
    given = SimplefinSettings(_env_file=None, base_url=BASE_URL, **settings)  # type: ignore[call-arg]
    return Simplefin(given, api), requests


def read(handler: Handler, cursors: dict[str, str] | None = None, **settings: Any) -> list[Page]:
    return asyncio.run(_read(connected(handler, **settings)[0], cursors))


async def _read(integration: Simplefin, cursors: dict[str, str] | None, token: str = ACCESS_URL) -> list[Page]:
    request = SyncRequest(
        caller=Caller(), access_token=token, cursors=cursors or {}, now=NOW, backfill=timedelta(days=200)
    )
    return await every(integration.pages(request))


def cursors_of(pages: list[Page]) -> dict[str, str]:
    return {page.feed: page.cursor for page in pages if page.cursor is not None}


def problems_of(pages: list[Page]) -> list[tuple[type[ProviderError], str, str | None]]:
    return [(type(error), error.reason, error.account_key) for page in pages for error in page.problems]


def records(pages: list[Page]) -> dict[tuple[str, str], TransactionRecord]:
    return {key: record for page in pages for key, record in rows_of(page).items()}


def asked(requests: list[httpx.Request]) -> list[tuple[date, date, list[str]]]:
    """First day, last day and accounts of each request."""
    found = []
    for request in requests:
        given = request.url.params
        first, last = (datetime.fromtimestamp(int(given[name]), UTC).date() for name in ("start-date", "end-date"))
        found.append((first, last - timedelta(days=1), given.get_list("account")))
    return found


# Claims

CLAIM = base64.b64encode(b"https://bridge.simplefin.org/simplefin/claim/SECRETWORD-2").decode()


def claim(handler: Handler, token: str = CLAIM) -> tuple[TokenAnswer, list[httpx.Request]]:
    integration, requests = connected(handler)
    return asyncio.run(integration.exchange(Caller(), {"setup_token": token}, now=NOW)), requests


def answering(status: int, text: str = "") -> Handler:
    return lambda request: httpx.Response(status, text=text)


def raising(error: Exception) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    return handler


def test_setup_token_is_claimed_with_an_empty_post_at_the_configured_server() -> None:
    answer, (request,) = claim(answering(200, f"{ACCESS_URL}\n"))

    assert answer.access_token == ACCESS_URL
    assert (request.method, str(request.url)) == ("POST", f"{BASE_URL}/claim/SECRETWORD-2")
    assert request.headers["content-length"] == "0"


@pytest.mark.parametrize("spelled", [CLAIM.rstrip("="), f" {CLAIM[:20]}\n{CLAIM[20:]} ", CLAIM.replace("+", "-")])
def test_setup_token_may_be_wrapped_and_without_padding(spelled: str) -> None:
    assert claim(answering(200, ACCESS_URL), spelled)[0].access_token == ACCESS_URL


@pytest.mark.parametrize(
    "address",
    [
        "https://elsewhere.test/simplefin/claim/x",
        "http://bridge.simplefin.org/simplefin/claim/x",
        "https://bridge.simplefin.org:8443/simplefin/claim/x",
        "https://bridge.simplefin.org/simplefinder/claim/x",
        "https://bridge.simplefin.org/simplefin/../admin",
        "https://bridge.simplefin.org/simplefin/%2e%2e/admin",
        "https://bridge.simplefin.org@elsewhere.test/simplefin/claim/x",
        "https://bridge.simplefin.org/simplefin",
        "https://[::1/simplefin/claim/x",
        "no address",
    ],
)
def test_token_of_another_server_is_refused_and_nothing_is_sent(address: str) -> None:
    integration, requests = connected(answering(200, ACCESS_URL))
    token = base64.b64encode(address.encode()).decode()

    with pytest.raises(BadRequest, match="nothing was sent"):
        asyncio.run(integration.exchange(Caller(), {"setup_token": token}, now=NOW))

    assert requests == []


@pytest.mark.parametrize("token", ["%%%", "abc", "a", "é", "x" * 10_000, CLAIM[:9]])
def test_what_is_no_setup_token_is_refused_and_nothing_is_sent(token: str) -> None:
    with pytest.raises(BadRequest, match="nothing was sent"):
        claim(answering(200, ACCESS_URL), token)


def test_token_that_was_used_before_says_that_somebody_else_may_have_it() -> None:
    with pytest.raises(ReauthRequired, match="somebody else may have it"):
        claim(answering(403, "Forbidden"))


@pytest.mark.parametrize(
    "handler",
    [
        raising(httpx.ReadTimeout("silent")),
        raising(httpx.ReadError("reset")),
        answering(500),
        answering(504),
        answering(200, "x" * (2 << 20)),
    ],
)
def test_claim_without_a_readable_answer_says_that_the_token_may_be_used_up(handler: Handler) -> None:
    with pytest.raises(OutcomeUnknown, match="not known whether the setup token was used up: make a new one"):
        claim(handler)


@pytest.mark.parametrize(
    "body",
    ["", "<html>", "https://elsewhere.test/simplefin", "https://a:b@elsewhere.test/simplefin", "\x00", "https://[:"],
)
def test_claim_that_brings_no_access_url_says_that_the_token_was_used_up(body: str) -> None:
    with pytest.raises(OutcomeUnknown, match="was used up"):
        claim(answering(200, body))


def test_claim_that_was_not_sent_says_so() -> None:
    with pytest.raises(Unsent):
        claim(raising(httpx.ConnectError("refused")))


def test_no_error_and_no_log_shows_token_or_password() -> None:
    handlers = [answering(403), answering(500), answering(200, "nonsense"), raising(httpx.ReadError("SECRET"))]
    with capture_logs() as logs:
        texts = []
        for handler in handlers:
            for call in (lambda handler=handler: claim(handler), lambda handler=handler: read(handler)):
                with pytest.raises(ProviderError) as caught:
                    call()
                texts.append(f"{caught.value!r} {caught.value} {caught.value.__cause__!r}")

    assert "SECRETWORD" not in f"{texts} {logs}"


# Accounts


def only_account(**more: Any) -> Page:
    return read(Bridge([account("A", **more)]))[0]


def test_account_is_read_as_stated() -> None:
    page = only_account(name="Visa Card (4321)", balance="-100.20", **{"available-balance": "899.80"})

    (found,), (stated,) = page.accounts, page.balances
    assert (found.type, found.subtype, found.mask, found.currency) == (AccountType.CREDIT, "credit_card", "4321", "USD")
    assert found.official_name == "Bank 0 Visa Card (4321)"
    assert (stated.current, stated.available) == (Decimal("-100.20"), Decimal("899.80"))
    assert stated.as_of == datetime(2025, 3, 10, tzinfo=UTC)
    assert page.accounts_complete


def test_number_in_a_name_is_shortened() -> None:
    (found,) = only_account(name="Checking 123456789012").accounts

    assert (found.name, found.mask) == ("Checking …9012", "9012")


def test_custom_currency_gets_a_code_of_its_own() -> None:
    codes = [only_account(currency=f"https://miles.example/{name}").accounts[0].currency for name in ("a", "a", "b")]

    assert codes[0] == codes[1] != codes[2]
    assert codes[0].isalnum()


@pytest.mark.parametrize("currency", ["", "dollars", "usd", None])
def test_account_without_a_currency_is_refused_and_none_is_guessed(currency: str | None) -> None:
    page = read(Bridge([account("A", currency=currency), account("B")]))[0]

    assert [one.account_key for one in page.accounts] == ["B"]
    assert [one.kind for one in page.rejects] == ["account"]
    assert not page.accounts_complete


@pytest.mark.parametrize("balance", ["NaN", "1e400", "1,234.56", None, "", "12.5.0", {}])
def test_bad_balance_rejects_the_balance_alone(balance: Any) -> None:
    page = only_account(balance=balance)

    assert ([one.account_key for one in page.accounts], page.balances) == (["A"], [])
    assert [(one.kind, one.account_key) for one in page.rejects] == [("balance", "A")]


def test_positions_are_read_though_the_protocol_does_not_define_them() -> None:
    holding = {
        "id": "H",
        "currency": "USD",
        "symbol": "ACME",
        "shares": "3",
        "market_value": "30.00",
        "cost_basis": "21",
    }
    page = only_account(name="Robo", holdings=[holding])

    (found,) = page.holdings
    assert page.accounts[0].type is AccountType.INVESTMENT
    assert (found.quantity, found.market_value, found.cost_basis, found.security.symbol) == (3, 30, 21, "ACME")
    assert page.holdings_complete_for == {"A"}


def test_one_id_at_two_banks_stays_two_accounts_in_every_order() -> None:
    both = [account("A"), account("A", conn_id="CON-1")]
    first = read(Bridge(both))
    again = read(Bridge(both[::-1]), cursors_of(first))
    alone = read(Bridge(both[1:]), cursors_of(again))

    names = [[(one.account_key, one.official_name) for one in pages[0].accounts] for pages in (first, again, alone)]
    assert names[0] == [("A", "Bank 0 Checking A"), ("A@CON-1", "Bank 1 Checking A")]
    assert names[1] == names[0][::-1]
    assert names[2] == names[0][1:]


def test_account_keeps_its_key_when_the_server_changes_to_version_2() -> None:
    old = {**account("A"), "org": {"domain": "bank.example", "name": "Bank"}}
    del old["conn_id"]
    first = read(Bridge([old]), version="1")

    assert read(Bridge([account("A")]), cursors_of(first))[0].accounts[0].account_key == "A"


# Transactions


def test_posted_and_pending_rows_are_told_apart() -> None:
    rows = [
        row("P", amount="1000.00", payee="Employer", transacted_at=seconds(date(2025, 3, 8))),
        row("Q", pending=True),
        {**row("R"), "posted": 0, "transacted_at": seconds(date(2025, 3, 9))},
        {**row("S"), "posted": 0},
    ]
    found = {key: one for (_, key), one in records(read(Bridge([account("A", *rows)]))).items()}

    assert {key: one.status for key, one in found.items()} == {
        "P": TransactionStatus.POSTED,
        "Q": TransactionStatus.PENDING,
        "R": TransactionStatus.PENDING,
        "S": TransactionStatus.PENDING,
    }
    assert [found[key].posted_date.day for key in "PQRS"] == [10, 10, 9, 10]
    assert (found["P"].amount, found["P"].counterparty) == (Decimal("1000.00"), "Employer")
    assert found["P"].occurred_at == datetime(2025, 3, 8, tzinfo=UTC)


def test_pending_rows_without_an_id_are_recognised_by_their_content() -> None:
    twins = [{**row(None), "posted": 0}, {**row(None), "posted": 0}]
    first, again = (list(records(read(Bridge([account("A", *twins)])))) for _ in range(2))

    assert len(first) == 2
    assert first == again


def test_posted_row_without_an_id_goes_to_quarantine() -> None:
    pages = read(Bridge([account("A", row(None), row("B"))]))

    assert [key for _, key in records(pages)] == ["B"]
    assert {one.reason for page in pages for one in page.rejects} == {"id_missing"}


@pytest.mark.parametrize("posted", [10**15, -(10**15), 1e300])
def test_impossible_time_refuses_the_row_alone(posted: float) -> None:
    bridge = Bridge([account("A", row("B"))])
    (page,) = (page for page in read(bridge) if page.map_transaction is not None and page.transactions)
    raw = page.transactions[0]._replace(raw=json.dumps({**row("C"), "posted": posted}).encode())

    with pytest.raises(Exception, match="posted_out_of_range"):
        page.map_transaction(raw)  # type: ignore[misc]


# Windows


def test_first_sync_reads_all_windows_of_all_accounts_together_oldest_first() -> None:
    integration, requests = connected(Bridge([account("A"), account("B")]))
    pages = asyncio.run(_read(integration, None))

    windows = asked(requests)
    assert [only for *_, only in windows] == [[], [], []]
    assert windows[0][0] == TODAY - timedelta(days=200)
    assert windows[-1][1] == TODAY
    assert all(later[0] == earlier[1] + timedelta(days=1) for earlier, later in pairwise(windows))
    assert max((last - first).days + 1 for first, last, _ in windows) == 89
    assert [page.more for page in pages if page.feed == "account:A"] == [True, True, False]


def test_later_sync_is_one_call() -> None:
    bridge = Bridge([account("A"), account("B")])
    cursors = cursors_of(read(bridge))
    integration, requests = connected(bridge)
    asyncio.run(_read(integration, cursors))

    assert asked(requests) == [(TODAY - timedelta(days=10), TODAY, [])]


def test_new_account_is_read_from_its_beginning_by_its_id_and_the_others_are_not() -> None:
    bridge = Bridge([account("A"), account("B")])
    cursors = cursors_of(read(bridge))
    bridge.accounts.append(account("C", row("old", TODAY - timedelta(days=150))))
    integration, requests = connected(bridge)
    pages = asyncio.run(_read(integration, cursors))

    assert [only for *_, only in asked(requests)] == [[], ["C"], ["C"], ["C"]]
    assert ("C", "old") in records(pages)
    assert cursors_of(pages)["account:C"] == cursors_of(pages)["account:A"]


@pytest.mark.parametrize("refuses", [None, 400])
def test_server_that_allows_only_44_days_is_asked_for_44(refuses: int | None) -> None:
    old = row("old", TODAY - timedelta(days=199))
    integration, requests = connected(Bridge([account("A", old)], longest=45, at_most=refuses))
    pages = asyncio.run(_read(integration, None))

    assert [(last - first).days + 1 for first, last, _ in asked(requests)][:3] == [89, 44, 44]
    assert ("A", "old") in records(pages)
    assert problems_of(pages) == []


def test_advice_about_45_days_is_no_problem() -> None:
    text = "Requested date range exceeds recommended range of 45 days. In the future, this may be capped."

    assert problems_of(read(Bridge([account()], errlist=[{"code": "gen.api", "msg": text}]))) == []


# Errors inside an answer


def story(*, version: str, **errors: Any) -> tuple[list[Page], dict[str, str]]:
    """A first sync in good order, then one with these errors of bank 1; its pages, and the cursors before it."""
    bank = {"CON-0": {"domain": "a.example", "name": "Bank 0"}, "CON-1": {"domain": "b.example", "name": "Bank 1"}}
    accounts = [account("A", org=bank["CON-0"]), account("B", conn_id="CON-1", org=bank["CON-1"])]
    if version == "1":
        for one in accounts:
            del one["conn_id"]
    cursors = cursors_of(read(Bridge(accounts), version=version))
    return read(Bridge(accounts, **errors), cursors, version=version), cursors


ERRORS = [
    ("2", {"errlist": [{"code": "con.auth", "msg": "Log in", "conn_id": "CON-1"}]}, ReauthRequired),
    ("2", {"errlist": [{"code": "con.auth", "message": "Log in", "conn_id": "CON-1"}]}, ReauthRequired),
    ("2", {"errlist": [{"code": "con.new", "msg": "?", "conn_id": "CON-1"}]}, InstitutionDown),
    ("2", {"errlist": [{"code": "act.failed", "msg": "?", "conn_id": "CON-1", "account_id": "B"}]}, InstitutionDown),
    ("2", {"errlist": [{"code": "act.new", "msg": "?", "account_id": "B"}]}, InstitutionDown),
    ("1", {"errors": ["Connection to Bank 1 may need attention"]}, ReauthRequired),
]


@pytest.mark.parametrize(("version", "errors", "error"), ERRORS)
def test_error_of_one_bank_or_account_is_its_problem_alone(version: str, errors: Any, error: Any) -> None:
    pages, _ = story(version=version, **errors)

    assert [(kind, key) for kind, _, key in problems_of(pages)] == [(error, "B")]
    assert [page.feed for page in pages if page.feed.startswith("account:")] == ["account:A"]
    assert [window.account_key for page in pages for window in page.windows] == ["A"]
    assert not pages[0].accounts_complete


def test_account_in_trouble_is_read_from_where_it_stood_once_the_trouble_is_over() -> None:
    accounts = [account("A"), account("B", conn_id="CON-1")]
    trouble = [{"code": "con.auth", "msg": "Log in", "conn_id": "CON-1"}]
    cursors = cursors_of(read(Bridge(accounts, errlist=trouble)))
    accounts[1]["transactions"] = [row("old", TODAY - timedelta(days=150))]

    assert ("B", "old") in records(read(Bridge(accounts), cursors))


def test_error_that_names_nobody_withdraws_nothing_and_keeps_the_last_window_unread() -> None:
    pages, before = story(version="2", errlist=[{"code": "gen.api", "msg": "Your trial ends soon"}])

    assert [reason for _, reason, _ in problems_of(pages)] == ["unknown_notice"]
    assert not any(page.windows for page in pages)
    assert cursors_of(pages).keys() == {"accounts"}
    assert "account:A" in before


def test_refused_access_url_inside_an_answer_needs_the_user() -> None:
    with pytest.raises(ReauthRequired):
        story(version="2", errlist=[{"code": "gen.auth", "msg": "Authentication required"}])


def test_warning_of_too_many_calls_stores_what_came_and_waits_for_hours() -> None:
    integration, _ = connected(Bridge([account("A", row("B"))], errors=["Too many requests today"]))
    got: list[Page] = []

    async def sync() -> None:
        request = SyncRequest(caller=Caller(), access_token=ACCESS_URL, cursors={}, now=NOW, backfill=timedelta(days=9))
        async for page in integration.pages(request):
            got.append(page)  # noqa: PERF401 - what came before the error is kept

    with pytest.raises(RateLimited) as caught:
        asyncio.run(sync())

    assert caught.value.retry_after == timedelta(hours=6)
    assert caught.value.scope is Scope.PROVIDER
    assert ("A", "B") in records(got)


def test_account_that_an_answer_leaves_out_does_not_stop_the_others() -> None:
    bridge = Bridge([account("A"), account("B")])
    served: Iterator[Bridge] = iter([bridge, Bridge([account("A")]), bridge])
    pages = read(lambda request: next(served)(request))

    assert [(reason, key) for _, reason, key in problems_of(pages)] == [("account_missing", "B")]


@pytest.mark.parametrize(("status", "error"), [(402, Forbidden), (403, ReauthRequired), (401, ReauthRequired)])
def test_status_of_an_answer(status: int, error: type[ProviderError]) -> None:
    with pytest.raises(error):
        read(answering(status, "No"))


def test_credential_of_another_server_needs_the_user_and_is_not_sent() -> None:
    integration, requests = connected(Bridge([account()]))

    with pytest.raises(ReauthRequired):
        asyncio.run(_read(integration, None, "https://ada:word@elsewhere.test/simplefin"))

    assert requests == []


def test_credential_is_sent_as_basic_and_never_in_the_address() -> None:
    integration, requests = connected(Bridge([account()]))
    asyncio.run(_read(integration, None, "https://ada:se%20cret@bridge.simplefin.org/simplefin/"))

    assert {request.headers["authorization"] for request in requests} == {
        "Basic " + base64.b64encode(b"ada:se cret").decode()
    }
    assert not any(request.url.userinfo for request in requests)
