"""Enable Banking's answers: what a stand-in in good order would not do."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache, partial
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from structlog.testing import capture_logs

from tests.unit.integrations.test_hostile_records import assert_each_is_mapped_or_refused, raws, spoilt
from worker.errors import (
    AppMisconfigured,
    ConfigurationError,
    InstitutionDown,
    NotReady,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    ReauthRequired,
    Refused,
    Scope,
)
from worker.integrations.enable_banking import mapping
from worker.integrations.enable_banking.integration import EnableBanking, EnableBankingSettings
from worker.integrations.enable_banking.stand_in import StandIn
from worker.integrations.kit import application_keys
from worker.integrations.kit.base import Caller, Page, SyncRequest
from worker.integrations.kit.contract.subject import BASE_URL, every, rows_of, scripted_api
from worker.models.records import BalanceRecord, TransactionRecord
from worker.models.vocabulary import AccountStatus, AccountType, TransactionStatus

NOW = datetime(2025, 3, 10, 12, 0, tzinfo=UTC)
TODAY = NOW.date()
SESSION = "4604aa90-f8a8-4180-92d8-0c3270846f0a"
UIDS = ("07cc67f4-45d6-494b-adac-09b5cbc7e2b5", "11cc67f4-45d6-494b-adac-09b5cbc7e2b5")
Answer = tuple[int, Any]


@pytest.fixture(scope="module", autouse=True)
def key_is_taken_apart_once() -> Iterator[None]:
    """To check the stand-in's key takes longer than a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application_keys, "_loaded", cache(application_keys._loaded))
        yield


def row(reference: str | None = None, day: date | None = TODAY, amount: str = "5.00", **more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "transaction_amount": {"currency": "EUR", "amount": amount},
        "credit_debit_indicator": "DBIT",
        "status": "BOOK",
        "creditor": {"name": "Corner Grocery"},
        "remittance_information": ["PAYMENT 77"],
    }
    if day is not None:
        given["booking_date"] = day.isoformat()
    if reference is not None:
        given["entry_reference"] = reference
    return given | more


def balance(kind: str = "CLBD", amount: str = "985.00", **more: Any) -> dict[str, Any]:
    return {"name": kind, "balance_type": kind, "balance_amount": {"currency": "EUR", "amount": amount}, **more}


def described(number: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "uid": UIDS[number],
        "identification_hash": f"hash-{number}",
        "identification_hashes": [f"hash-{number}", f"other-{number}"],
        "account_id": {"iban": f"FI88212915877334{number:02d}"},
        "name": "Mary Example",
        "product": "Current",
        "cash_account_type": "CACC",
        "currency": "EUR",
    } | more


@dataclass
class Bank:
    """A bank with these accounts. `lists` has the pages of each account's transactions; a page may be an error."""

    accounts: list[dict[str, Any]] = field(default_factory=lambda: [described()])
    lists: dict[int, list[Any]] = field(default_factory=dict)
    balances: list[Any] = field(default_factory=lambda: [balance()])
    session: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, Answer] = field(default_factory=dict)
    oldest: date = date.min
    asked: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        status, body = self.answer(request.method, request.url.path.strip("/").split("/"), request.url.params)
        if isinstance(body, str):
            return httpx.Response(status, text=body)
        return httpx.Response(status, content=json.dumps(body).encode())

    def answer(self, method: str, path: list[str], params: httpx.QueryParams) -> Answer:
        for name, answer in self.errors.items():
            if "/".join(path).startswith(name):
                return answer
        match path:
            case ["sessions"]:
                access = {"valid_until": "2025-06-01T00:00:00+00:00"}
                return 200, {"session_id": SESSION, "accounts": self.accounts, "access": access}
            case ["sessions", _]:
                data = [
                    {name: one[name] for name in ("uid", "identification_hash", "identification_hashes")}
                    for one in self.accounts
                    if "uid" in one
                ]
                about = {"status": "AUTHORIZED", "aspsp": {"name": "Mock Bank", "country": "FI"}}
                access = {"valid_until": "2025-06-01T00:00:00+00:00"}
                return 200, about | {"accounts_data": data, "access": access} | self.session
            case ["accounts", uid, "details"]:
                return 200, self.accounts[UIDS.index(uid)]
            case ["accounts", _, "balances"]:
                return 200, {"balances": self.balances}
            case ["accounts", uid, "transactions"]:
                if date.fromisoformat(params["date_from"]) < self.oldest:
                    return 422, error("WRONG_TRANSACTIONS_PERIOD")
                return self.page(UIDS.index(uid), int(params.get("continuation_key", "0")))
        raise AssertionError(path)

    def page(self, account: int, number: int) -> Answer:
        listed = self.lists.get(account, [[]])
        found = listed[number]
        if isinstance(found, tuple):
            return found
        key = {"continuation_key": str(number + 1)} if number + 1 < len(listed) else {}
        return 200, {"transactions": found, **key}

    def asked_for(self, part: str) -> list[dict[str, str]]:
        """The queries of all requests whose path ends in this."""
        return [dict(one.url.params) for one in self.asked if one.url.path.endswith(part)]


def error(word: str, **more: Any) -> dict[str, Any]:
    return {"message": "…", "error": word, **more}


def connected(bank: Callable[[httpx.Request], httpx.Response], **more: Any) -> EnableBanking:
    api, _ = scripted_api("enable_banking", bank, gate=None, max_bytes=1 << 22)
    given = EnableBankingSettings(_env_file=None, base_url=BASE_URL, **{**StandIn.credentials, **more})
    return EnableBanking(given, api)


def read(bank: Bank, cursors: dict[str, str] | None = None, *, token: str = SESSION, **more: Any) -> list[Page]:
    async def go() -> list[Page]:
        given = {"caller": Caller(), "access_token": token, "cursors": cursors or {}, "now": NOW} | more
        return await every(connected(bank).pages(SyncRequest(**given)))

    return asyncio.run(go())


def until_it_fails(bank: Bank, kind: type[ProviderError], **more: Any) -> tuple[list[Page], Any]:
    """The pages before the error that ends the reading, and the error."""
    found: list[Page] = []

    async def go() -> None:
        request = SyncRequest(caller=Caller(), access_token=SESSION, cursors=more.get("cursors", {}), now=NOW)
        async for page in connected(bank).pages(request):
            found.append(page)  # noqa: PERF401 - what came before the error counts, too

    with pytest.raises(kind) as caught:
        asyncio.run(go())
    return found, caught.value


def records(found: list[Page]) -> list[TransactionRecord]:
    return [record for page in found for record in rows_of(page).values()]


def keys(found: list[Page]) -> list[str]:
    return [one.key for page in found for one in page.transactions]


def problems(found: list[Page]) -> list[tuple[str, str, str | None]]:
    return [(type(one).__name__, one.reason, one.account_key) for page in found for one in page.problems]


def read_until(day: date) -> dict[str, str]:
    return {"account:hash-0": json.dumps({"through": day.isoformat()})}


YESTERDAY = read_until(TODAY - timedelta(days=1))


# The key of the application


def pem(key: Any, lock: Any = None) -> str:
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock or NoEncryption()).decode())


SMALL = rsa.generate_private_key(65537, 1024)  # noqa: S505 - to be refused


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("SECRETWORD", "this is no private key in PEM format; make one with: openssl genrsa -out private.key 4096"),
        (StandIn.credentials["private_key"][:400], "this is no private key in PEM format"),
        (pem(SMALL), "the key has 1024 bits, and 2048 is the least; make one with: openssl genrsa"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "the key is of another kind than RSA"),
        (pem(SMALL, BestAvailableEncryption(b"x")), "locked with a password. Write it without: openssl rsa -in"),
    ],
    ids=["no key", "half a key", "small", "of another kind", "locked"],
)
def test_key_that_cannot_sign_is_refused_by_name_with_the_command_that_mends_it(key: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connected(Bank(), private_key=key)

    assert str(caught.value).startswith("ENABLE_BANKING_PRIVATE_KEY: ")
    assert says in str(caught.value)
    assert not [line for line in key.splitlines() if len(line) > 40 and line in str(caught.value)]


def test_calls_of_an_hour_share_one_signed_token_and_then_there_is_a_new_one() -> None:
    now = 1_000_000.0
    about = {"key_id": "app-1", "issuer": "us", "audience": "them", "variable": "KEY"}
    key = application_keys.ApplicationKey(StandIn.credentials["private_key"], clock=lambda: now, **about)
    first = key.bearer()
    now += 3000
    assert key.bearer() == first
    now += 400

    second = key.bearer()

    token = second["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert second != first
    assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "RS256", "kid": "app-1"}
    assert (claims["iss"], claims["aud"], claims["iat"]) == ("us", "them", int(now) - 60)
    assert 0 < claims["exp"] - claims["iat"] <= 86_400


def test_clock_that_was_set_back_makes_a_new_token() -> None:
    now = 1_000_000.0
    about = {"key_id": "app-1", "issuer": "us", "audience": "them", "variable": "KEY"}
    key = application_keys.ApplicationKey(StandIn.credentials["private_key"], clock=lambda: now, **about)
    first = key.bearer()
    now -= 7200

    assert key.bearer() != first


# Banks and consent

BANKS = {
    "aspsps": [
        {
            "name": "Nordea",
            "country": "FI",
            "psu_types": ["personal", "business"],
            "maximum_consent_validity": 86_400,
            "auth_methods": [
                {"name": "app", "psu_type": "personal", "approach": "REDIRECT", "hidden_method": False},
                {"name": "secret", "psu_type": "personal", "approach": "DECOUPLED", "hidden_method": True},
                {"name": "MTA", "title": "Mobile", "psu_type": "business", "approach": "REDIRECT"},
                {"name": "card", "psu_type": "business", "approach": "REDIRECT"},
            ],
        },
        {"name": "Åland Bank", "country": "AX", "psu_types": ["personal"], "maximum_consent_validity": 10**9},
        {"name": "half a bank"},
    ]
}


class Office:
    """Answers about banks and consents; `sent` is what was asked for."""

    def __init__(self, url: str = "https://tilisy.test/welcome?sessionid=1") -> None:
        self.sent: list[dict[str, Any]] = []
        self.lists = 0
        self.url = url

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/aspsps":
            self.lists += 1
            return httpx.Response(200, json=BANKS)
        self.sent.append(json.loads(request.content))
        return httpx.Response(200, json={"url": self.url, "authorization_id": "1", "psu_id_hash": "2"})


def test_each_kind_of_customer_and_way_to_log_in_is_a_choice_and_hidden_ones_are_none() -> None:
    office = Office()
    integration = connected(office)

    found = asyncio.run(integration.choices(Caller(), "bank"))
    asyncio.run(integration.choices(Caller(), "bank"))

    assert [(one.group, one.label) for one in found] == [
        ("AX", "Åland Bank, AX, personal"),
        ("FI", "Nordea, FI, personal"),
        ("FI", "Nordea, FI, business, Mobile"),
        ("FI", "Nordea, FI, business, card"),
    ]
    assert office.lists == 1, "the list is kept for some minutes"


def test_banks_of_other_countries_are_not_offered_if_countries_are_named() -> None:
    found = asyncio.run(connected(Office(), countries=" ax , SE").choices(Caller(), "bank"))

    assert [one.group for one in found] == ["AX"]


def consent(office: Office, words: str, **more: Any) -> str:
    async def go() -> str:
        integration = connected(office, **more)
        (field,) = integration.link_kind.asks
        value = field.pick(await integration.choices(Caller(), "bank"), words)
        return await integration.begin_consent(Caller(), {"bank": value}, state="s-1", challenge=None, now=NOW)

    return asyncio.run(go())


def test_consent_is_asked_for_as_long_as_the_bank_allows_and_no_longer_than_wanted() -> None:
    office = Office()

    consent(office, "nordea mobile")
    consent(office, "Åland Bank, AX, personal")

    first, second = office.sent
    assert first["aspsp"] == {"name": "Nordea", "country": "FI"}
    assert (first["psu_type"], first["auth_method"], first["state"]) == ("business", "MTA", "s-1")
    assert first["redirect_url"] == "https://127.0.0.1"
    assert datetime.fromisoformat(first["access"]["valid_until"]) == NOW + timedelta(days=1)
    assert datetime.fromisoformat(second["access"]["valid_until"]) == NOW + timedelta(days=180)
    assert "auth_method" not in second


@pytest.mark.parametrize("url", ["javascript:alert(1)", "http://elsewhere.test/", "//elsewhere.test", ""])
def test_address_for_consent_that_is_no_https_address_is_refused(url: str) -> None:
    with pytest.raises(ProviderError, match="consent_address"):
        consent(Office(url), "nordea personal")


def test_bank_that_is_not_offered_any_more_is_refused() -> None:
    integration, value = connected(Office()), json.dumps(["FI", "Gone", "personal", None])

    with pytest.raises(Refused, match="this bank is not offered any more; nothing was changed"):
        asyncio.run(integration.begin_consent(Caller(), {"bank": value}, state="s", challenge=None, now=NOW))


# Sessions


def link(bank: Bank) -> Any:
    return asyncio.run(connected(bank).exchange(Caller(), {"code": "c-1"}, now=NOW))


def test_what_is_shown_once_is_kept_with_the_session_without_the_number_and_the_holder_s_name() -> None:
    bank = Bank([described(product="Account FI8821291587733400")])

    answer = link(bank)

    session, (kept,) = mapping.credential.read(answer.access_token)
    assert answer.grant_expires_at == datetime(2025, 6, 1, tzinfo=UTC)
    assert (session, kept.hash, kept.mask, kept.currency) == (SESSION, "hash-0", "3400", "EUR")
    assert "Mary" not in str(kept)
    assert "FI88212915877334" not in str(kept)
    assert bank.asked_for("details") == []
    (account,) = read(bank, token=answer.access_token)[0].accounts
    assert (account.name, account.type, account.institution) == (
        "Account FI…3400",
        AccountType.DEPOSITORY,
        "Mock Bank, FI",
    )
    assert bank.asked_for("details") == []


def test_credential_that_was_stored_before_is_read_as_it_was_meant() -> None:
    kept = (
        '[{"hash":"hash-0","hashes":["hash-0","other-0"],"uid":"07cc67f4-45d6-494b-adac-09b5cbc7e2b5","name":"Current",'
        '"mask":"3400","currency":"EUR","kind":"CACC"},{"hash":"hash-1","currency":"SEK"}]'
    )
    token = f"ebs.{SESSION}.{base64.urlsafe_b64encode(kept.encode()).decode().rstrip('=')}"
    bank = Bank([described()])

    page = read(bank, token=token)[0]

    second, first = page.accounts
    assert (first.account_key, first.name, first.mask, first.provider_type) == ("hash-0", "Current", "3400", "CACC")
    assert first.stable_keys == ("hash-0", "other-0")
    assert (second.account_key, second.currency, second.status) == ("hash-1", "SEK", AccountStatus.INACCESSIBLE)
    assert bank.asked_for("details") == []


def test_account_that_was_not_described_at_the_consent_is_asked_for() -> None:
    bank = Bank([described(0), described(1, cash_account_type="CARD")])
    bank.errors = {f"accounts/{UIDS[0]}/details": (404, error("ACCOUNT_DOES_NOT_EXIST"))}

    page, *_ = read(bank)

    assert [(one.account_key, one.type) for one in page.accounts] == [("hash-1", AccountType.CREDIT)]
    assert problems([page]) == [("BadPayload", "no_details:ACCOUNT_DOES_NOT_EXIST", "hash-0")]
    assert not page.accounts_complete


def test_session_whose_answer_cannot_be_read_may_have_been_made() -> None:
    with pytest.raises(OutcomeUnknown, match="unreadable_session"):
        link(Bank(errors={"sessions": (200, "<html>")}))


@pytest.mark.parametrize("word", ["WRONG_AUTHORIZATION_CODE", "EXPIRED_AUTHORIZATION_CODE", "ALREADY_AUTHORIZED"])
def test_code_that_is_not_good_needs_a_new_consent(word: str) -> None:
    with pytest.raises(ReauthRequired, match=word):
        link(Bank(errors={"sessions": (422, error(word))}))


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        ("EXPIRED", ReauthRequired, "session_expired"),
        ("CLOSED", ReauthRequired, "session_closed"),
        ("REVOKED", ReauthRequired, "session_revoked"),
        ("INVALID", ReauthRequired, "session_invalid"),
        ("PENDING_AUTHORIZATION", NotReady, "session_pending_authorization"),
        ("<b>x</b>", ReauthRequired, "session_ended"),
    ],
)
def test_state_of_the_session_decides_whether_the_login_works(status: str, kind: Any, reason: str) -> None:
    _, caught = until_it_fails(Bank(session={"status": status}), kind)

    assert caught.reason == reason


def test_end_of_the_consent_is_read_again_each_time_and_an_unreadable_one_changes_nothing() -> None:
    moved, spoilt_ = {"valid_until": "2025-04-01T02:00:00+02:00"}, {"valid_until": "soon"}

    assert read(Bank(session={"access": moved}))[0].grant_expires_at == datetime(2025, 4, 1, tzinfo=UTC)
    assert read(Bank(session={"access": spoilt_}))[0].grant_expires_at is None


@pytest.mark.parametrize("word", ["UNAUTHORIZED_ACCESS", "NO_ACCOUNTS_ADDED", "ACCESS_DENIED"])
def test_refused_key_is_trouble_of_the_application_and_no_user_is_asked(word: str) -> None:
    until_it_fails(Bank(errors={"sessions": (401, error(word))}), AppMisconfigured)


# Accounts


def test_account_without_an_id_of_the_session_is_listed_as_inaccessible_and_is_its_own_trouble() -> None:
    blocked = {name: value for name, value in described(1).items() if name != "uid"}
    bank = Bank([described(0), blocked], {0: [[row("r-1")]]})

    found = read(bank, token=link(bank).access_token)

    assert {one.account_key: one.status for one in found[0].accounts} == {
        "hash-0": AccountStatus.ACTIVE,
        "hash-1": AccountStatus.INACCESSIBLE,
    }
    assert problems(found) == [("AccountGone", "account_unreadable", "hash-1")]
    assert keys(found) == ["r-1"]


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize(
    "body", ["", error("EXPIRED_SESSION"), error("INVALID_ACCOUNT_ID"), error("ACCOUNT_DOES_NOT_EXIST")]
)
def test_refusal_about_one_account_is_its_own_trouble_whatever_it_says(status: int, body: Any) -> None:
    bank = Bank([described(0), described(1)], {1: [[row("r-1")]]})
    bank.errors = {f"accounts/{UIDS[0]}/transactions": (status, body), f"accounts/{UIDS[0]}/balances": (status, body)}

    found = read(bank)

    assert {key for _, _, key in problems(found)} == {"hash-0"}
    assert keys(found) == ["r-1"]


def test_bank_that_does_not_answer_about_one_account_leaves_the_others() -> None:
    bank = Bank([described(0), described(1)], {1: [[row("r-1")]]})
    bank.errors = {f"accounts/{UIDS[0]}/": (400, error("ASPSP_ERROR")), "accounts/x": (502, "<html>")}
    bank.errors |= {f"accounts/{UIDS[0]}/details": (200, described(0))}
    bank.errors = dict(reversed(bank.errors.items()))

    found = read(bank)

    assert problems(found) == [("InstitutionDown", "ASPSP_ERROR", "hash-0")] * 2
    assert keys(found) == ["r-1"]
    assert len(bank.asked_for("balances")) == 2, "a bank that fails is not asked again at once"


def test_bank_that_wants_its_user_needs_the_user() -> None:
    until_it_fails(
        Bank(errors={f"accounts/{UIDS[0]}/balances": (403, error("ASPSP_PSU_ACTION_REQUIRED"))}), ReauthRequired
    )


def test_html_of_a_gateway_is_a_passing_trouble() -> None:
    bank = Bank(errors={f"accounts/{UIDS[0]}/balances": (502, "<html>Bad Gateway</html>")})

    assert problems(read(bank)) == [("Transient", "http_502", "hash-0")]


@pytest.mark.parametrize(
    ("now", "country", "wait"),
    [
        ("2025-07-10T20:30:00+00:00", "FI", timedelta(minutes=35)),  # 23:30 in Helsinki
        ("2025-07-10T21:30:00+00:00", "FI", timedelta(hours=23, minutes=35)),
        ("2025-07-10T22:30:00+00:00", "GB", timedelta(minutes=35)),
        ("2025-01-10T22:30:00+00:00", "DE", timedelta(minutes=35)),
        ("2025-01-10T22:30:00+00:00", "??", timedelta(minutes=35)),
    ],
)
def test_next_day_begins_by_the_clock_of_the_bank(now: str, country: str, wait: timedelta) -> None:
    session = mapping.Session("AUTHORIZED", [], "Bank", country)

    assert session.next_day(datetime.fromisoformat(now)) == wait


def test_account_whose_day_is_used_up_waits_for_the_next_one_and_the_others_are_read_first() -> None:
    bank = Bank([described(0), described(1)], {1: [[row("r-1")]]})
    bank.errors = {f"accounts/{UIDS[0]}/transactions": (429, error("ASPSP_RATE_LIMIT_EXCEEDED"))}

    found, caught = until_it_fails(bank, RateLimited)

    assert keys(found) == ["r-1"]
    assert problems(found) == []
    assert (caught.scope, caught.retry_after) == (Scope.PROVIDER, timedelta(hours=10, minutes=5))  # 14:00 in Helsinki


def test_no_header_says_that_a_user_is_there() -> None:
    bank = Bank(lists={0: [[row("r-1")]]})

    read(bank)

    assert not [name for one in bank.asked for name in one.headers if name.lower().startswith("psu-")]


# Balances


def stated(*balances: Any) -> BalanceRecord | None:
    found = [one for page in read(Bank(balances=list(balances))) for one in page.balances]
    return found[0] if found else None


@pytest.mark.parametrize(
    ("kinds", "source"),
    [
        (("CLAV", "XPCD", "ITBD", "CLBD"), "CLBD"),
        (("ITAV", "XPCD", "ITBD"), "ITBD"),
        (("ITAV", "XPCD"), "XPCD"),
        (("ITAV", "CLAV"), "CLAV"),
        (("OTHR", "INFO"), "OTHR"),
    ],
)
def test_balance_is_the_most_certain_that_is_stated(kinds: tuple[str, ...], source: str) -> None:
    found = stated(*(balance(kind, f"{number}.00") for number, kind in enumerate(kinds)))

    assert found is not None
    assert (found.source, found.current) == (source, Decimal(kinds.index(source)))


def test_debit_indicator_makes_a_balance_a_debt_and_one_of_another_currency_is_passed_over() -> None:
    foreign = balance("CLBD", "1.00") | {"balance_amount": {"currency": "USD", "amount": "7.00"}}
    found = stated(foreign, balance("ITBD", "12.50", credit_debit_indicator="DBIT", reference_date="2025-03-09"))

    assert found is not None
    assert (found.current, found.currency, found.as_of) == (Decimal("-12.50"), "EUR", datetime(2025, 3, 9, tzinfo=UTC))


@pytest.mark.parametrize("amount", ["NaN", "1,234.56", "1e400", None, {}])
def test_balance_that_is_no_number_rejects_itself_alone(amount: Any) -> None:
    found = read(Bank(balances=[balance(amount=amount), balance("ITAV", "3.00")], lists={0: [[row("r-1")]]}))

    assert [reject.account_key for page in found for reject in page.rejects] == ["hash-0"]
    assert [one.source for page in found for one in page.balances] == ["ITAV"]
    assert keys(found) == ["r-1"]


# Transactions


def mapped(**more: Any) -> TransactionRecord:
    (record,) = records(read(Bank(lists={0: [[row("r-1", **more)]]}), YESTERDAY))
    return record


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("BOOK", TransactionStatus.POSTED),
        ("PDNG", TransactionStatus.PENDING),
        ("HOLD", TransactionStatus.PENDING),
        ("SCHD", TransactionStatus.PENDING),
        ("CNCL", TransactionStatus.CANCELED),
        ("RJCT", TransactionStatus.CANCELED),
        ("OTHR", TransactionStatus.POSTED),
    ],
)
def test_status_is_one_of_ours(word: str, status: TransactionStatus) -> None:
    record = mapped(status=word)

    assert record.status == status
    assert ("status_unknown" in record.flags) == (word == "OTHR")


def test_indicator_gives_the_sign_and_the_other_party() -> None:
    into = mapped(credit_debit_indicator="CRDT", debtor={"name": "Employer"})
    out = mapped()

    assert (into.amount, into.counterparty) == (Decimal("5.00"), "Employer")
    assert (out.amount, out.counterparty) == (Decimal("-5.00"), "Corner Grocery")


def test_negative_amount_has_the_sign_of_its_indicator_and_a_flag() -> None:
    record = mapped(amount="-5.00")

    assert (record.amount, record.flags) == (Decimal("-5.00"), ("sign_by_indicator",))


@pytest.mark.parametrize(
    ("given_", "day"),
    [
        ({"value_date": "2025-03-08", "transaction_date": "2025-03-07"}, TODAY),
        ({"booking_date": None, "value_date": "2025-03-08", "transaction_date": "2025-03-07"}, date(2025, 3, 8)),
        ({"booking_date": None, "transaction_date": "2025-03-07"}, date(2025, 3, 7)),
        ({"booking_date": None, "status": "PDNG"}, TODAY),
    ],
)
def test_day_is_the_first_that_is_stated(given_: dict[str, Any], day: date) -> None:
    assert mapped(**given_).posted_date == day


@pytest.mark.parametrize(
    "bad",
    [
        {"booking_date": None},
        {"booking_date": "2025-02-30"},
        {"credit_debit_indicator": "BOTH"},
        {"transaction_amount": {"currency": "EUR", "amount": "NaN"}},
        {"transaction_amount": {"currency": "EUR", "amount": "1,5"}},
        {"transaction_amount": {"currency": "euro", "amount": "1.5"}},
        {"transaction_amount": None},
        {"status": None},
    ],
)
def test_row_that_cannot_be_trusted_costs_itself_alone(bad: dict[str, Any]) -> None:
    page = read(Bank(lists={0: [[row("bad", **bad), row("good")]]}), YESTERDAY)[-1]

    assert_each_is_mapped_or_refused(page, 2)
    good = {one.key: one for one in page.transactions}["good"]
    assert page.map_transaction is not None
    assert page.map_transaction(good).amount == Decimal("-5.00")


@settings(max_examples=60)
@given(
    spoilt(
        row("r-1", value_date="2025-03-09", transaction_date="2025-03-08", debtor={"name": "Ada"}, note="n")
        | {"bank_transaction_code": {"code": "12", "sub_code": "32"}, "balance_after_transaction": {"amount": "1"}}
    )
)
def test_row_with_anything_in_it_costs_itself_alone(one: dict[str, Any]) -> None:
    found = mapping.Rows("hash-0").split(raws(one, row("good")))

    page = Page(
        transactions=found.rows, rejects=found.rejects, map_transaction=partial(mapping.transaction, today=TODAY)
    )
    assert_each_is_mapped_or_refused(page, 2)


# Identity of transactions


def test_id_of_the_list_is_neither_a_key_nor_a_change() -> None:
    first = read(Bank(lists={0: [[row("r-1", transaction_id="t-1"), row(transaction_id='t"2')]]}), YESTERDAY)[-1]
    second = read(Bank(lists={0: [[row("r-1", transaction_id="t-3"), row(transaction_id="t-4")]]}), YESTERDAY)[-1]

    assert first.transactions == second.transactions
    assert first.transactions[0].key == "r-1"


@pytest.mark.parametrize("reference", [None, "", "2025-03-10.0", "2025-03-10-3", "NOTPROVIDED"])
def test_reference_that_names_no_transaction_is_replaced_by_the_content(reference: str | None) -> None:
    (key,) = keys(read(Bank(lists={0: [[row(reference)]]}), YESTERDAY))
    (later,) = keys(read(Bank(lists={0: [[row("2025-03-10.7")]]}), YESTERDAY))

    assert key.startswith("content:")
    assert key == later


def test_equal_rows_without_a_reference_are_told_apart_and_keep_their_keys() -> None:
    twins = [row(), row(amount="9.00"), row()]
    whole = keys(read(Bank(lists={0: [twins]}), YESTERDAY))
    in_pages = keys(read(Bank(lists={0: [[one] for one in twins]}), YESTERDAY))

    assert len(set(whole)) == 3
    assert whole == in_pages


def test_equal_rows_on_both_sides_of_a_break_are_told_apart() -> None:
    bank = Bank(lists={0: [[row("r-1"), row()], [], [row()]]})
    whole = read(bank)
    first = next(page for page in whole if page.more)
    assert first.cursor is not None

    rest = read(bank, {first.feed: first.cursor})

    assert len(set(keys(whole))) == 3
    assert {*keys([first]), *keys(rest)} == set(keys(whole))


def test_one_transaction_under_two_references_is_one_if_something_proves_it() -> None:
    after = {"balance_after_transaction": {"currency": "EUR", "amount": "985.00"}}

    assert keys(read(Bank(lists={0: [[row("b", **after), row("a", **after)]]}), YESTERDAY)) == ["a"]
    by_id = [row("b", transaction_id="t", **after), row("a", transaction_id="t")]
    assert keys(read(Bank(lists={0: [by_id]}), YESTERDAY)) == ["a"]


def test_equal_purchases_under_two_references_stay_two() -> None:
    after = [{"balance_after_transaction": {"currency": "EUR", "amount": amount}} for amount in ("985.00", "980.00")]

    assert keys(read(Bank(lists={0: [[row("b"), row("a")]]}), YESTERDAY)) == ["b", "a"]
    assert keys(read(Bank(lists={0: [[row("b", **after[0]), row("a", **after[1])]]}), YESTERDAY)) == ["b", "a"]
    by_id = [row("b", transaction_id="t-1", **after[0]), row("a", transaction_id="t-2", **after[0])]
    assert keys(read(Bank(lists={0: [by_id]}), YESTERDAY)) == ["b", "a"]


def test_row_that_gets_its_reference_later_withdraws_the_one_that_had_none() -> None:
    (before,) = keys(read(Bank(lists={0: [[row()]]}), YESTERDAY))

    page = read(Bank(lists={0: [[row("r-1")]]}), YESTERDAY)[-1]

    assert keys([page]) == ["r-1"]
    assert [one.key for one in page.removals] == [before]


def test_row_that_still_has_no_reference_is_not_withdrawn_because_of_an_equal_one() -> None:
    (before,) = keys(read(Bank(lists={0: [[row()]]}), YESTERDAY))

    page = read(Bank(lists={0: [[row("r-1"), row()]]}), YESTERDAY)[-1]

    assert set(keys([page])) == {"r-1", before}
    assert before not in {one.key for one in page.removals}


# Pages and days


def test_first_load_asks_for_the_longest_history_and_later_ones_do_not() -> None:
    bank = Bank(lists={0: [[row("r-1")], [], [row("r-2")]]})

    found = read(bank, backfill=timedelta(days=730))
    later = Bank(lists={0: [[]]})
    read(later, {page.feed: page.cursor for page in found if page.cursor is not None})

    queries = bank.asked_for("transactions")
    assert keys(found) == ["r-1", "r-2"]
    assert {(one["strategy"], one["date_from"]) for one in queries} == {("longest", "2023-03-11")}
    assert [one.get("continuation_key") for one in queries] == [None, "1", "2"]
    assert later.asked_for("transactions") == [{"date_from": (TODAY - timedelta(days=10)).isoformat()}]


def test_unfinished_first_load_goes_on_with_the_same_question() -> None:
    bank = Bank(lists={0: [[row("r-1")], [row("r-2")], [row("r-3")]]})
    first = next(page for page in read(bank) if page.more)
    assert first.cursor is not None
    bank.asked.clear()

    assert keys(read(bank, {first.feed: first.cursor})) == ["r-2", "r-3"]
    assert [one["strategy"] for one in bank.asked_for("transactions")] == ["longest", "longest"]


def test_later_list_is_one_page_in_which_pending_rows_may_vanish() -> None:
    bank = Bank(lists={0: [[row("r-1")], [], [row("r-2", status="PDNG")]]})

    page = read(bank, YESTERDAY)[-1]

    assert keys([page]) == ["r-1", "r-2"]
    assert [(one.first, one.last) for one in page.windows] == [(TODAY - timedelta(days=10), TODAY)]


@pytest.mark.parametrize(
    ("status", "word"), [(422, "WRONG_CONTINUATION_KEY"), (422, "WRONG_REQUEST_PARAMETERS"), (400, "")]
)
def test_continuation_key_that_is_not_taken_begins_the_list_anew(status: int, word: str) -> None:
    class Forgetful(Bank):
        def page(self, account: int, number: int) -> Answer:
            if number and len(self.asked_for("transactions")) == 2:
                return status, error(word) if word else ""
            return super().page(account, number)

    for cursors in ({}, YESTERDAY):
        bank = Forgetful(lists={0: [[row("r-1"), row()], [row("r-2"), row()]]})
        found = read(bank, cursors)

        assert set(keys(found)) == set(keys(read(Bank(lists=bank.lists), cursors)))
        assert problems(found) == []
        assert [one.get("continuation_key") for one in bank.asked_for("transactions")] == [None, "1", None, "1"]
        assert bool(found[-1].windows) == (cursors == YESTERDAY), "a list in one page says which days it has"


def test_continuation_key_that_is_never_taken_is_trouble_of_its_account_alone() -> None:
    bank = Bank([described(0), described(1)], {0: [[row("r-1")], (400, "")], 1: [[row("r-2")]]})

    found = read(bank)

    assert problems(found) == [("BadRequest", "http_400", "hash-0")]
    assert set(keys(found)) == {"r-1", "r-2"}


def test_unfinished_list_of_an_earlier_session_begins_anew() -> None:
    before = Bank(lists={0: [[row("r-1")], [row("r-2")]]})
    first = next(page for page in read(before) if page.more)
    assert first.cursor is not None

    class Renewed(Bank):
        def page(self, account: int, number: int) -> Answer:
            is_old = number and len(self.asked_for("transactions")) == 1
            return (422, error("WRONG_CONTINUATION_KEY")) if is_old else super().page(account, number)

    assert keys(read(Renewed(lists=before.lists), {first.feed: first.cursor})) == ["r-1", "r-2"]


def test_accounts_that_share_a_number_are_told_apart_by_their_currency() -> None:
    shared = {"identification_hash": "hash-0", "identification_hashes": ["hash-0"]}
    bank = Bank([described(0), described(1, currency="USD", **shared)])

    page = read(bank, token=link(bank).access_token)[0]

    assert {one.account_key: one.currency for one in page.accounts} == {"hash-0": "EUR", "hash-0@USD": "USD"}


def test_list_that_never_ends_is_trouble_of_its_account() -> None:
    class Endless(Bank):
        def page(self, account: int, number: int) -> Answer:
            return 200, {"transactions": [row(f"r-{number}")], "continuation_key": "1"}

    assert problems(read(Endless(), YESTERDAY)) == [("BadPayload", "continuation_key_repeats", "hash-0")]


@pytest.mark.parametrize("days", [89, 60, 30])
def test_bank_that_gives_fewer_days_is_asked_for_fewer(days: int) -> None:
    bank = Bank(lists={0: [[row("r-1")]]}, oldest=TODAY - timedelta(days=days))

    found = read(bank)

    assert keys(found) == ["r-1"]
    assert problems(found) == []
    assert bank.asked_for("transactions")[-1] == {"date_from": bank.oldest.isoformat()}


def test_code_of_a_bank_that_gives_fewer_days_is_understood_without_a_word() -> None:
    class Short(Bank):
        def page(self, account: int, number: int) -> Answer:
            if "strategy" in self.asked[-1].url.params:
                return 422, {"message": "…", "code": "PERIOD_INVALID", "detail": "dateFrom=2025-01-01"}
            return 200, {"transactions": [row("r-1")]}

    assert keys(read(Short())) == ["r-1"]


def test_days_that_a_bank_no_longer_gives_are_a_problem_once() -> None:
    bank = Bank(lists={0: [[row("r-1")]]}, oldest=TODAY - timedelta(days=60))

    found = read(bank, read_until(TODAY - timedelta(days=200)))

    assert keys(found) == ["r-1"]
    assert problems(found) == [("Unsupported", "days_not_given", "hash-0")]
    assert [(one.first, one.last) for one in found[-1].windows] == [(TODAY - timedelta(days=59), TODAY)]


def test_bank_that_gives_no_days_at_all_is_trouble_of_the_account() -> None:
    bank = Bank(lists={0: [[row("r-1")]]}, oldest=TODAY)

    assert problems(read(bank)) == [("BadRequest", "WRONG_TRANSACTIONS_PERIOD", "hash-0")]


def test_day_is_asked_for_again_from_where_a_person_says() -> None:
    bank = Bank(lists={0: [[row("r-1")]]})

    read(bank, YESTERDAY, since=date(2025, 1, 1))

    assert bank.asked_for("transactions") == [{"date_from": "2025-01-01"}]


def test_account_that_an_earlier_run_has_read_is_not_asked_for() -> None:
    bank = Bank([described(0), described(1)])

    read(bank, done=frozenset({"account:hash-0"}))

    assert {one.url.path.split("/")[2] for one in bank.asked if one.url.path.endswith("transactions")} == {UIDS[1]}


# Secrets


def test_neither_key_nor_token_nor_session_is_in_a_log_of_refused_calls() -> None:
    bank = Bank(
        errors={
            f"accounts/{UIDS[0]}/balances": (500, "oops"),
            "sessions/": (200, Bank().answer("", ["sessions", "x"], httpx.QueryParams())[1]),
        }
    )
    with capture_logs() as logs:
        read(bank)

    signed = bank.asked[-1].headers["authorization"].removeprefix("Bearer ")
    assert logs
    assert signed not in str(logs)
    assert SESSION not in str(logs)


def test_institution_that_is_down_stops_the_reading_before_anything_was_read() -> None:
    until_it_fails(Bank(errors={"sessions": (408, error("ASPSP_TIMEOUT"))}), InstitutionDown)
