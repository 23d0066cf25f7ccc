"""SnapTrade as published, for an OAuth app: single-use refresh tokens, and two connections behind each login.

`broken` is a trouble and the number of a connection or an account: `disabled/1` (a connection that its user must
repair), `replaced/1` (the same, and a new connection lists its accounts under new ids), `hidden/0` (an account whose
holdings the brokerage does not show); `refused/0` (402), `populating/0` (425) and `unavailable/0` (503) of an account.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar

from worker.sandbox.core import Login, Sandbox
from worker.sandbox.grants import Policy, TokenPair
from worker.sandbox.hooks import Outgoing
from worker.sandbox.ledger import ZERO, Account, Ledger, Security, Transaction
from worker.sandbox.loopback import is_registered
from worker.sandbox.oauth import OAuthProfile
from worker.sandbox.plain_books import Kind, PlainBooks, hold_some
from worker.sandbox.wire import Answer, RefusedError, Request, array, basic_credentials, document, json_answer, uuid

CONSUMER_KEY = "sandbox-consumer-key"
_SETTINGS = ("client_id", "client_secret", "redirect_uri", "consumer_keys")
_BROKERAGES = ("Robinhood", "Questrade")
_KINDS = {"equity": "stock", "etf": "etf", "mutual_fund": "mutualfund", "option": "option", "crypto": "crypto"}
_CODES = {"equity": "cs", "etf": "et", "mutual_fund": "oef"}
_ERRORS = {
    "bad_request": (400, "1076", "Unable to verify data sent"),
    "unauthorized": (401, "1076", "Unable to verify signature sent"),
    "refused": (402, "3003", "Unable to sync with brokerage account because the connection is disabled."),
    "forbidden": (403, "1066", "You do not have permission to perform this action."),
    "not_found": (404, "1011", "The requested resource does not exist."),
    "method_not_allowed": (405, "0000", "Method not allowed."),
    "populating": (425, "3012", "The resource is currently being populated. Please try again later."),
    "internal": (500, "0000", "Unexpected error."),
    "unavailable": (503, "3002", "Unable to sync with brokerage account. Invalid response from Brokerage API."),
}
_HOOKS = {"changed": "ACCOUNT_TRANSACTIONS_UPDATED", "broken": "CONNECTION_BROKEN", "repaired": "CONNECTION_FIXED"}
_ACTIVITIES = ("BUY", "BUY", "BUY", "SELL", "DIVIDEND", "INTEREST", "FEE", "CONTRIBUTION", "A_TYPE_OF_ITS_OWN")
_CREATED = "2025-0{}-20T21:56:19.123935+00:00"
_USD = {"id": "57f81c53-bdda-45a7-a51f-032afd1ae41b", "code": "USD", "name": "US Dollar"}


class StandIn(OAuthProfile, PlainBooks):
    """Grants, connections, accounts and their activities."""

    key = "snaptrade"
    client = ("sandbox-app", "sandbox-secret")
    credentials: ClassVar = dict(zip(_SETTINGS, (*client, "https://127.0.0.1", CONSUMER_KEY), strict=True))
    addresses: ClassVar = {"authorize_url": "/oauth/authorize"}
    token_path = "/oauth/token/"  # noqa: S105 - a path
    access_format, refresh_format = "at_{}", "rt_{}"
    unknown_token = "at_SECRETWORD-of-nobody-1"  # noqa: S105 - made up
    cash_is_a_holding = True
    kinds = (
        Kind("Individual", "investment", "brokerage", (500_000, 3_000_000)),
        Kind("Roth IRA", "investment", "brokerage", (500_000, 3_000_000)),
        Kind("Cash Management", "depository", "deposit", (100_000, 500_000)),
    )
    usual = 3

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.policy = Policy(access_seconds=36_000, grant_seconds=315_360_000, reuse="strict")
        self._scopes: dict[str, str] = {}
        self._hook_urls: dict[str, str | None] = {}
        self._sent = 0

    def callback_url(self, login: Login, asked: Mapping[str, str]) -> str:
        """Where the browser is sent; the redirect URI must be the registered one, and there must be a challenge."""
        if not is_registered(asked.get("redirect_uri", ""), self.redirect_uri) or not asked.get("code_challenge"):
            raise ValueError("redirect_uri or code_challenge")
        self._scopes[login.name] = asked.get("scope", "read")
        return super().callback_url(login, asked)

    def _token(self, request: Request) -> Answer:
        return super()._token(request) if basic_credentials(request.header("authorization")) else self.wrong_client()

    def _token_answer(self, pair: TokenPair, *, rotated: bool) -> Answer:
        answer, grant = super()._token_answer(pair, rotated=rotated), self.grants.bearer(pair.access_token)
        login = grant.login if grant else ""
        more = {"scope": self._scopes.get(login, "read webhook"), "sub": {"snaptrade_user_id": uuid(login)}}
        answer.body = json.dumps(json.loads(answer.body) | more).encode()
        return answer

    def _revoke(self, request: Request) -> Answer:
        if basic_credentials(request.header("authorization")) != self.client:
            return self.wrong_client()
        if (found := self.grants.lookup(request.form().get("token", ""))) is not None:
            self.grants.kill(found[0], "revoked")
        return Answer(200, b"", [])

    def error(self, name: str) -> Answer:
        """A published error by its name."""
        status, code, detail = _ERRORS[name]
        return json_answer(status, {"detail": detail, "status_code": status, "code": code})

    def rate_limited(self, request: Request, retry_after: str | None) -> Answer:
        """The published 429; which limit it is, its headers say."""
        wait = retry_after if retry_after and retry_after.isdigit() else "7"
        body = {"detail": f"Request was throttled. Expected available in {wait} seconds.", "status_code": 429}
        headers = [(b"retry-after", (retry_after or wait).encode("latin-1")), *_limits(request.path, "0", wait)]
        return json_answer(429, body | {"code": "0000"}, headers)

    def data(self, request: Request) -> Answer:
        """Everything but consent and tokens."""
        if request.path == "/oauth/revoke_token/" and request.method == "POST":
            return self._revoke(request)
        login = self.authorised(request)
        login.served.requests += 1
        if request.method != "GET":
            return self.error("method_not_allowed")
        answer = self._answer(login, request.path.strip("/").split("/"), request.parameters())
        answer.headers += _limits(request.path, "9", "60")
        return answer

    def _answer(self, login: Login, path: list[str], given: dict[str, str]) -> Answer:
        match path:
            case ["authorizations"]:
                connections = range(3 if (login.broken or "").startswith("replaced/") else 2)
                return json_answer(200, [self._connection(login, n) for n in connections])
            case ["accounts"]:
                login.served.accounts |= {account.id for account in login.ledger.open_accounts()}
                listed = [document(**one) for one in self._accounts_listed(login)]
                return Answer(200, array([*listed, *login.ledger.verbatim_accounts]))
            case ["accounts", id_, *rest]:
                index, account, renamed = self._find(login, id_)
                trouble, number = login.trouble
                if number == str(index) and trouble in ("refused", "populating", "unavailable"):
                    return self.error(trouble)
                hidden = (trouble, number) == ("hidden", str(index))
                match rest:
                    case ["balances"]:
                        cash = ZERO if hidden else account.cash
                        return json_answer(200, [{"currency": _USD, "cash": cash, "buying_power": cash}])
                    case ["positions", "all"]:
                        return self._positions(login, account, hidden=hidden)
                    case ["activities"]:
                        return self._activities(login, account, given, renamed=renamed)
        return self.error("not_found")

    def _connection(self, login: Login, number: int) -> dict[str, Any]:
        disabled = login.broken in (f"disabled/{number}", f"replaced/{number}")
        name = _BROKERAGES[int((login.broken or "/0").partition("/")[2]) % 2 if number == 2 else number]
        brokerage = {"id": uuid(name), "slug": name.upper(), "name": name, "display_name": name, "enabled": True}
        since = {"created_date": _CREATED.format(number + 1), "disabled_date": _CREATED.format(9) if disabled else None}
        own = {"id": uuid(login.name, "connection", number), "name": f"Connection-{number}", "type": "read"}
        return own | since | {"brokerage": brokerage, "disabled": disabled, "data_freshness_mode": "delayed"}

    def _accounts_listed(self, login: Login) -> list[dict[str, Any]]:
        accounts = [(n, one) for n, one in enumerate(login.ledger.accounts.values()) if not one.closed]
        listed = [self._account(login, n, account, n % 2) for n, account in accounts]
        again = [(n, account) for n, account in accounts if login.broken == f"replaced/{n % 2}"]
        return listed + [self._account(login, n, account, 2) for n, account in again]

    def _account(self, login: Login, index: int, account: Account, connection: int) -> dict[str, Any]:
        now, done = self.sandbox.clock.now(), {"initial_sync_completed": True}
        first = account.by_time[0].date.isoformat() if account.by_time else None
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        pulled = (midnight + timedelta(microseconds=login.ledger.head)).isoformat()
        holdings = {"last_successful_sync": pulled, "holdings_unavailable": login.broken == f"hidden/{index}"}
        days = {"last_successful_sync": now.date().isoformat(), "first_transaction_date": first}
        return {
            "id": uuid(account.id, "again") if connection == 2 else account.id,
            "brokerage_authorization": uuid(login.name, "connection", connection),
            "name": account.name,
            "number": account.number,
            "institution_account_id": f"I-{uuid(account.number)[:13]}x",
            "institution_name": _BROKERAGES[index % 2],
            "created_date": _CREATED.format(connection + 1),
            "sync_status": {"transactions": days | done, "holdings": holdings | done},
            "balance": {"total": {"amount": account.current, "currency": "USD"}},
            "account_category": "INVESTMENT" if account.type == "investment" else "DEPOSIT",
        } | {"status": "open", "raw_type": "Cash", "is_paper": False}

    def _find(self, login: Login, id_: str) -> tuple[int, Account, bool]:
        for index, account in enumerate(login.ledger.accounts.values()):
            renamed = id_ == uuid(account.id, "again") and (login.broken or "").startswith("replaced/")
            if not account.closed and (id_ == account.id or renamed):
                return index, account, renamed
        raise RefusedError(self.error("not_found"))

    def _positions(self, login: Login, account: Account, *, hidden: bool) -> Answer:
        held = [] if hidden else list(account.holdings.values())
        login.served.holdings = {pair for pair in login.served.holdings if pair[0] != account.id}
        login.served.holdings.update((account.id, one.security.id) for one in held)
        rows = [_position(_instrument(h.security), h.quantity, h.security.price, h.average_price) for h in held]
        if account.type == "investment" and not hidden:
            fund = {"kind": "mutualfund", "id": uuid("CASHX"), "symbol": "CASHX", "raw_symbol": "CASHX"}
            rows.append(_position(fund, account.cash, Decimal("1.00"), Decimal("1.00")) | {"cash_equivalent": True})
        results = array([*(document(**row) for row in rows), *account.verbatim_holdings])
        as_of = {"as_of": self.sandbox.clock.now().replace(hour=0, minute=0, second=0, microsecond=0).isoformat()}
        return Answer(200, document(results=results, data_freshness=as_of))

    def _activities(self, login: Login, account: Account, given: dict[str, str], *, renamed: bool) -> Answer:
        if login.not_ready_left > 0:
            login.not_ready_left -= 1
            return self.error("populating")
        try:
            first = date.fromisoformat(given.get("startDate") or "0001-01-01")
            last = date.fromisoformat(given.get("endDate") or "9999-12-31")
            offset, limit = int(given.get("offset", "0")), min(int(given.get("limit", "1000")), 1000)
        except ValueError:
            return self.error("bad_request")
        rows = [row for row in account.by_time if first <= row.date <= last and login.visible(row)]
        login.served.window(rows, (row for row in account.removed if first <= row.date <= last))
        records = [*map(self.render, reversed(rows)), *account.verbatim]
        if renamed:
            records = [record.replace(b'"id":"', b'"id":"again-', 1) for record in records]
        pagination = {"offset": offset, "limit": limit, "total": len(records)}
        return Answer(200, document(data=array(records[offset : offset + limit]), pagination=pagination))

    def written(self, row: Transaction) -> dict[str, Any]:
        """One activity."""
        security, kind = row.security, row.kind
        is_option = security is not None and security.kind == "option"
        figures = {"price": row.price, "units": row.quantity, "amount": row.amount, "fee": row.fees}
        unused = dict.fromkeys(("currency_universal_symbol", "fx_rate", "external_reference_id"))
        return {
            "id": row.id,
            "symbol": None if security is None or is_option else _symbol(security),
            "option_symbol": _option(security) if security is not None and is_option else None,
            "currency": _USD,
            "type": kind if kind.isupper() else "CONTRIBUTION" if row.amount > 0 else "WITHDRAWAL",
            "option_type": f"{kind}_TO_{'OPEN' if kind == 'BUY' else 'CLOSE'}" if is_option else "",
            "description": row.description,
            "trade_date": row.moment.isoformat(),
            "settlement_date": row.moment.replace(hour=0, minute=0, second=0).isoformat(),
            "institution": "Robinhood",
        } | (figures | unused)

    def want_hooks(self, login: Login, address: str | None) -> None:
        """Sets the address for hooks about the login, which an application enters in the dashboard."""
        self._hook_urls[login.name] = address

    def hook(self, login: Login, event: str) -> Outgoing | None:
        """The hook about a login; None without an address, or if its owner has not allowed hooks, or no more."""
        address = self._hook_urls.get(login.name)
        if address is None or event == "revoked" or "webhook" not in self._scopes.get(login.name, "read webhook"):
            return None
        self._sent += 1
        kind, sent = _HOOKS.get(event, event), {"webhookId": uuid("hook", self._sent), "oauthClientId": self.client[0]}
        at = {"schemaVersion": "oauth_v1", "eventTimestamp": self.sandbox.clock.now().isoformat()}
        about = {"userId": uuid(login.name), "connectionId": uuid(login.name, "connection", 0)}
        text = json.dumps({**at, **sent, **about, "eventType": kind}).encode()
        return Outgoing(login.name, kind, address, text, partial(self.sign_hook, text))

    def sign_hook(self, body: bytes) -> Mapping[str, str]:
        """The header with the signature of a body's canonical JSON."""
        with suppress(ValueError, RecursionError):
            body = json.dumps(json.loads(body), separators=(",", ":"), sort_keys=True).encode()
        return {"Signature": base64.b64encode(hmac.new(CONSUMER_KEY.encode(), body, hashlib.sha256).digest()).decode()}

    def may_pend(self, account: Account) -> bool:
        """Activities are a day late, so none is pending."""
        return False

    def _accounts(self, login: Login) -> list[Account]:
        accounts = super()._accounts(login)
        for account in accounts:
            account.number = f"Q{login.random.randint(10**9, 10**10 - 1)}"
            account.id = uuid(account.id)
        return accounts

    def fill(self, login: Login, ledger: Ledger, account: Account) -> None:
        """Adds the first positions of an investment account."""
        if account.type == "investment":
            size = partial(_size, login.random)
            hold_some(login, ledger, account, self.market, kinds=tuple(_KINDS), share=0.8, size=size)

    def row(self, login: Login, ledger: Ledger, account: Account, moment: Any, *, past: bool = False) -> Transaction:
        """A made-up activity."""
        row, chance = super().row(login, ledger, account, moment, past=past), login.random
        if account.type != "investment":
            return row
        row.kind = chance.choice(_ACTIVITIES)
        row.description = f"{row.kind} {chance.randint(1, 400)}"
        if row.kind in ("BUY", "SELL"):
            row.security = chance.choice([one for one in self.market.values() if one.kind in _KINDS])
            row.price, row.fees = row.security.price, Decimal("0.66") if row.security.kind == "option" else ZERO
            row.quantity = _size(chance, row.security) * (1 if row.kind == "BUY" else -1)
            row.amount = -row.quantity * row.price * row.security.multiplier - row.fees
            if not past:
                ledger.trade(account, row.security, row.quantity, row.price)
        else:
            row.security = self.market["ACME"] if row.kind == "DIVIDEND" else None
            row.amount = Decimal(chance.randint(100, 90_000)).scaleb(-2) * (-1 if row.kind == "FEE" else 1)
        return row


def _size(chance: random.Random, security: Security) -> Decimal:
    return Decimal(chance.randint(1, 5 if security.kind == "option" else 40))


def _limits(path: str, left: str, reset: str) -> list[tuple[bytes, bytes]]:
    named = {"x-ratelimit-": ("250", "9" if path.startswith("/accounts/") else left)}
    if path.startswith("/accounts/"):
        named["x-ratelimit-account-"] = ("10", left)
    told = [(name, {"limit": most, "remaining": rest, "reset": reset}) for name, (most, rest) in named.items()]
    return [(f"{name}{word}".encode(), value.encode()) for name, words in told for word, value in words.items()]


def _position(instrument: dict[str, Any], units: Decimal, price: Decimal, cost: Decimal) -> dict[str, Any]:
    figures = {"units": str(units), "price": str(price), "cost_basis": str(cost), "currency": "USD"}
    return {"instrument": instrument, **figures}


def _instrument(security: Security) -> dict[str, Any]:
    if security.kind == "option":
        under = {"kind": "stock", "id": uuid(security.underlying), "symbol": security.underlying}
        ends = {"strike_price": str(security.strike), "expiration_date": str(security.expires)}
        option = {"option_type": (security.right or "").upper(), "multiplier": str(security.multiplier), **ends}
        own = {"kind": "option", "id": uuid(security.id), "symbol": security.symbol, "description": security.name}
        return own | option | {"underlying": under | {"raw_symbol": security.underlying}}
    return {"kind": _KINDS[security.kind], **_named(security), "currency": "USD", "exchange": "XNAS"}


def _named(security: Security) -> dict[str, Any]:
    names = {"symbol": security.symbol, "raw_symbol": security.symbol, "description": security.name}
    return {"id": uuid(security.id), **names}


def _symbol(security: Security) -> dict[str, Any]:
    code = _CODES.get(security.kind, "crypto")
    return {**_named(security), "currency": _USD, "type": {"id": uuid(code), "code": code}, "figi_code": None}


def _option(security: Security) -> dict[str, Any]:
    under = {"id": uuid(security.underlying), "symbol": security.underlying, "currency": _USD}
    own = {"id": uuid(security.id), "ticker": security.symbol, "option_type": (security.right or "").upper()}
    ends = {"strike_price": security.strike, "expiration_date": str(security.expires), "is_mini_option": False}
    return own | ends | {"underlying_symbol": under}


STAND_IN = StandIn
