"""The Plaid API as published: every call is a POST with the application's and the Item's credentials in the body."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from worker.sandbox import people
from worker.sandbox.core import Caller
from worker.sandbox.grants import Policy, token_digest
from worker.sandbox.ledger import Account, Ledger, Transaction
from worker.sandbox.profiles import plaid_books as books
from worker.sandbox.profiles import plaid_feed as feed
from worker.sandbox.profiles import plaid_wire as wire
from worker.sandbox.profiles.plaid_errors import LIMITS, PlaidError
from worker.sandbox.wire import JSON_HEADER, Answer, Request, identifier, json_answer

if TYPE_CHECKING:
    from worker.sandbox.core import Login, Sandbox

CLIENT_ID = "sandbox-client"
SECRET = "sandbox-secret"  # noqa: S105 - opens nothing but this stand-in

_PUBLIC_TOKEN_SECONDS = 1800
_MAX_INVESTMENT_DAYS = 731
_PRODUCTS = ["transactions", "investments"]
_PRICE_MOVE = Decimal("0.05")


@dataclass(slots=True, eq=False)
class _Item:
    id: str
    login: Login
    access_token: str
    created: datetime
    swaps: int = 0


class PlaidProfile:
    """Items, their feeds and their books."""

    key = "plaid"
    cash_is_a_holding = True

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._policy = Policy()
        self._market = people.securities(sandbox.seed, sandbox.clock.today())
        self._items: dict[str, _Item] = {}
        self._of_login: dict[str, _Item] = {}
        self._public: dict[str, tuple[str, float]] = {}
        self._serial = 0
        self._windows: dict[str, tuple[object, list[Transaction]]] = {}
        self._open: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "/link/token/create": self._link_token,
            "/sandbox/public_token/create": self._public_token,
            "/item/public_token/exchange": self._exchange,
            "/institutions/get_by_id": self._institution,
        }
        self._of_item: dict[str, Callable[[_Item, dict[str, Any]], Answer]] = {
            "/item/get": self._item_get,
            "/item/remove": self._item_remove,
            "/item/access_token/invalidate": self._invalidate,
            "/sandbox/item/reset_login": self._reset_login,
            "/accounts/get": self._accounts_get,
            "/accounts/balance/get": self._accounts_get,
            "/transactions/sync": self._transactions_sync,
            "/investments/holdings/get": self._holdings,
            "/investments/transactions/get": self._investments,
        }

    # Who is calling

    def caller(self, request: Request) -> Caller:
        """Who is calling: see `core.Profile`."""
        if request.path == "/item/public_token/exchange":
            public = self._public.get(_text(request.json(), "public_token"))
            return Caller("exchange", login=public[0] if public else None)
        token = _text(request.json(), "access_token")
        item = self._items.get(token)
        return Caller("data", item.login.name, item.id, item.swaps, token_digest(token)) if item else Caller()

    # Answers

    def answer(self, request: Request, caller: Caller) -> Answer:
        """The published answer to one request."""
        try:
            return self._dispatch(request)
        except PlaidError as error:
            return error.answer(self._request_id())

    def error(self, name: str) -> Answer:
        """A published error by its name."""
        return PlaidError(name).answer(self._request_id())

    def rate_limited(self, request: Request, retry_after: str | None) -> Answer:
        """The published 429."""
        answer = self.error(LIMITS.get(request.path, "RATE_LIMIT"))
        if retry_after:
            answer.headers.append((b"retry-after", retry_after.encode("latin-1")))
        return answer

    def _dispatch(self, request: Request) -> Answer:
        body = request.json()
        client = _text(body, "client_id") or request.header("plaid-client-id")
        secret = _text(body, "secret") or request.header("plaid-secret")
        if request.method != "POST" or (request.path not in self._open and request.path not in self._of_item):
            raise PlaidError("NOT_FOUND")
        if (client, secret) != (CLIENT_ID, SECRET):
            raise PlaidError("INVALID_API_KEYS")
        if request.path in self._open:
            return self._open[request.path](body)
        item = self._items.get(_text(body, "access_token"))
        if item is None:
            raise PlaidError("INVALID_ACCESS_TOKEN")
        if item.login.broken and not request.path.startswith(("/item/", "/sandbox/")):
            code, _, reason = item.login.broken.partition("/")
            raise PlaidError(code, reason=reason or None)
        item.login.served.requests += 1
        return self._of_item[request.path](item, body)

    def _request_id(self) -> str:
        self._serial += 1
        return f"sandbox{self._serial:08d}"

    # Linking

    def _link_token(self, body: dict[str, Any]) -> Answer:
        for name in ("client_name", "language", "country_codes", "user"):
            if name not in body:
                raise PlaidError("MISSING_FIELDS", name)
        expires = (self._sandbox.clock.now() + timedelta(hours=4)).strftime("%Y-%m-%dT%H:%M:%SZ")
        token = f"link-sandbox-{identifier('link', self._serial, length=32)}"
        return json_answer(200, {"link_token": token, "expiration": expires, "request_id": self._request_id()})

    def _public_token(self, body: dict[str, Any]) -> Answer:
        options = _options(body)
        wanted = _text(options, "override_username")
        mine = [name for name, login in self._sandbox.logins.items() if login.profile is self]
        name = wanted or next((n for n in mine if n not in self._of_login), mine[0] if mine else "")
        if name not in mine:
            raise PlaidError("INVALID_INSTITUTION")
        return json_answer(200, {"public_token": self._new_public_token(name), "request_id": self._request_id()})

    def _new_public_token(self, login: str) -> str:
        token = f"public-sandbox-{identifier(self._sandbox.seed, 'public', login, self._request_id(), length=36)}"
        self._public[token] = (login, self._sandbox.clock.seconds() + _PUBLIC_TOKEN_SECONDS)
        return token

    def _exchange(self, body: dict[str, Any]) -> Answer:
        login, expires = self._public.pop(_text(body, "public_token"), ("", 0.0))
        if not login or self._sandbox.clock.seconds() >= expires:
            raise PlaidError("INVALID_PUBLIC_TOKEN")
        item = self._new_item(self._sandbox.logins[login])
        answer = {"access_token": item.access_token, "item_id": item.id, "request_id": self._request_id()}
        return json_answer(200, answer)

    def _new_item(self, login: Login) -> _Item:
        earlier = self._of_login.get(login.name)
        if earlier is not None:
            self._items.pop(earlier.access_token, None)
        number = self._request_id()
        item = _Item(
            identifier(self._sandbox.seed, "item", login.name, number),
            login,
            self._new_access_token(login.name, number),
            self._sandbox.clock.now(),
        )
        self._items[item.access_token] = self._of_login[login.name] = item
        login.visible_from = None
        return item

    def _new_access_token(self, *parts: str) -> str:
        return f"access-sandbox-{identifier(self._sandbox.seed, 'access', *parts, length=36)}"

    # The Item

    def _institution(self, body: dict[str, Any]) -> Answer:
        name = _text(body, "institution_id")
        if not re.fullmatch(r"ins_\d+", name):
            raise PlaidError("INVALID_INSTITUTION")
        institution = {
            "institution_id": name,
            "name": f"Sandbox Bank {name.removeprefix('ins_')}",
            "products": _PRODUCTS,
            "country_codes": ["US"],
            "url": None,
            "primary_color": None,
            "logo": None,
            "routing_numbers": [],
            "oauth": False,
            "connection_availability": "SUPPORTED",
        }
        return json_answer(200, {"institution": institution, "request_id": self._request_id()})

    def _item(self, item: _Item) -> dict[str, Any]:
        broken = item.login.broken
        error = None if broken is None else msgspec.json.decode(self.error(broken.partition("/")[0]).body)
        return {
            "item_id": item.id,
            "institution_id": f"ins_{item.login.ordinal}",
            "institution_name": f"Sandbox Bank {item.login.ordinal}",
            "webhook": None,
            "auth_method": None,
            "error": error,
            "available_products": ["balance"],
            "billed_products": _PRODUCTS,
            "products": _PRODUCTS,
            "consent_expiration_time": None,
            "update_type": "background",
        }

    def _item_get(self, item: _Item, body: dict[str, Any]) -> Answer:
        return json_answer(200, {"item": self._item(item), "status": None, "request_id": self._request_id()})

    def _item_remove(self, item: _Item, body: dict[str, Any]) -> Answer:
        self._items.pop(item.access_token)
        self._of_login.pop(item.login.name)
        return json_answer(200, {"request_id": self._request_id()})

    def _invalidate(self, item: _Item, body: dict[str, Any]) -> Answer:
        self._items.pop(item.access_token)
        item.swaps += 1
        item.access_token = self._new_access_token(item.id, str(item.swaps))
        self._items[item.access_token] = item
        answer = {"new_access_token": item.access_token, "request_id": self._request_id()}
        return json_answer(200, answer)

    def _reset_login(self, item: _Item, body: dict[str, Any]) -> Answer:
        item.login.broken = "ITEM_LOGIN_REQUIRED"
        return json_answer(200, {"reset_login": True, "request_id": self._request_id()})

    # Data

    def _accounts_get(self, item: _Item, body: dict[str, Any]) -> Answer:
        accounts = _chosen(item.login, body)
        return self._data(accounts=self._accounts(item.login, accounts), item=self._item(item))

    def _accounts(self, login: Login, accounts: list[Account]) -> bytes:
        login.served.accounts.update(account.id for account in accounts)
        return wire.array([wire.account(account) for account in accounts] + login.ledger.verbatim_accounts)

    def _data(self, **members: Any) -> Answer:
        return Answer(200, wire.document(**members, request_id=self._request_id()), [JSON_HEADER])

    def _transactions_sync(self, item: _Item, body: dict[str, Any]) -> Answer:
        login, options = item.login, _options(body)
        count = _whole(body, "count", 100, 1, 500)
        text, stream = _text(body, "cursor"), _text(options, "account_id")
        accounts = [a for a in login.ledger.open_accounts() if books.in_feed(a) and stream in ("", a.id)]
        if stream and not accounts:
            raise PlaidError("INVALID_ACCOUNT_ID")
        if login.not_ready_left:
            login.not_ready_left -= 1
            empty = feed.Page()
            return self._sync_answer(login, accounts, empty, "", "NOT_READY")
        if login.visible_from is None:
            days = _whole(options, "days_requested", 90, 1, 730)
            login.visible_from = self._sandbox.clock.today() - timedelta(days=days)
        if text and text != "now" and login.forced_restarts:
            login.forced_restarts -= 1
            raise PlaidError("TRANSACTIONS_SYNC_MUTATION_DURING_PAGINATION")
        stops = self._policy.mutation == "error"
        try:
            cursor = feed.start(text, login, item.id, stream, mutation_stops=stops)
        except feed.BadCursorError as error:
            raise PlaidError("INVALID_FIELD", "cursor not associated with access_token") from error
        except feed.MutatedError as error:
            raise PlaidError("TRANSACTIONS_SYNC_MUTATION_DURING_PAGINATION") from error
        page = feed.page(login, cursor, count)
        next_cursor = page.cursor.write(item.id)
        return self._sync_answer(login, accounts, page, next_cursor, "HISTORICAL_UPDATE_COMPLETE")

    def _sync_answer(
        self, login: Login, accounts: list[Account], page: feed.Page, next_cursor: str, status: str
    ) -> Answer:
        login.served.rows += len(page.added) + len(page.modified)
        return self._data(
            accounts=self._accounts(login, accounts),
            added=wire.array(page.added),
            modified=wire.array(page.modified),
            removed=wire.array(page.removed),
            next_cursor=next_cursor,
            has_more=page.more,
            transactions_update_status=status,
        )

    def _holdings(self, item: _Item, body: dict[str, Any]) -> Answer:
        accounts = self._investing(item.login, body)
        day, cash = self._sandbox.clock.today().isoformat(), self._market["CUR:USD"]
        rows = [row for account in accounts for row in wire.holdings(account, cash, day)]
        held = {id_: h.security for account in accounts for id_, h in account.holdings.items()} | {cash.id: cash}
        served = item.login.served
        served.holdings = {(a.id, id_) for a in accounts for id_ in (*a.holdings, cash.id)}
        return self._data(
            accounts=self._accounts(item.login, accounts),
            holdings=wire.array(rows),
            securities=wire.array(wire.security(security, day) for security in held.values()),
            item=self._item(item),
            is_investments_fallback_item=False,
        )

    def _investments(self, item: _Item, body: dict[str, Any]) -> Answer:
        login, options = item.login, _options(body)
        first, last = _day(body, "start_date"), _day(body, "end_date")
        if last < first or (last - first).days > _MAX_INVESTMENT_DAYS:
            raise PlaidError("INVALID_FIELD", "start_date and end_date must be at most 24 months apart")
        count = _whole(options, "count", 100, 1, 500)
        offset = _whole(options, "offset", 0, 0, 1_000_000_000)
        accounts = self._investing(login, body)
        if login.not_ready_left and options.get("async_update"):
            login.not_ready_left -= 1
            raise PlaidError("PRODUCT_NOT_READY")
        rows = self._newest_first(login, accounts, first, last)
        page = rows[offset : offset + count]
        named = {row.security.id: row.security for row in page if row.security}
        day = self._sandbox.clock.today().isoformat()
        gone = (row.id for a in accounts for row in a.removed if first <= row.date <= last)
        login.served.transactions.difference_update(gone)
        login.served.transactions.update(row.id for row in page)
        login.served.rows += len(page)
        verbatim = [record for account in accounts for record in account.verbatim]
        return self._data(
            accounts=self._accounts(login, accounts),
            securities=wire.array(wire.security(security, day) for security in named.values()),
            investment_transactions=wire.array([wire.investment(row) for row in page] + verbatim),
            total_investment_transactions=len(rows) + len(verbatim),
            item=self._item(item),
            is_investments_fallback_item=False,
        )

    def _newest_first(self, login: Login, accounts: list[Account], first: date, last: date) -> list[Transaction]:
        # Paging by offset asks for the same window again and again; it is sorted once while the books stand still.
        key = (login.ledger.head, first, last, tuple(account.id for account in accounts))
        if login.name not in self._windows or self._windows[login.name][0] != key:
            start, end = datetime.combine(first, time.min, UTC), datetime.combine(last, time.max, UTC)
            rows = [row for a in accounts for row in a.between(start, end)]
            rows.sort(key=lambda row: (row.moment, row.id), reverse=True)
            self._windows[login.name] = (key, rows)
        return self._windows[login.name][1]

    def _investing(self, login: Login, body: dict[str, Any]) -> list[Account]:
        accounts = [account for account in _chosen(login, body) if account.type == "investment"]
        if not accounts:
            raise PlaidError("NO_INVESTMENT_ACCOUNTS")
        return accounts

    # What the core asks for

    def furnish(self, login: Login) -> Ledger:
        """Books for a new login."""
        return books.furnish(login, self._market)

    def warm(self, login: Login) -> None:
        """Make and render the books."""
        for row in login.ledger.transactions.values():
            (wire.investment if row.account.type == "investment" else wire.transaction)(row)

    def step(self, login: Login, moment: datetime) -> None:
        """Move a login's books on by one step."""
        self._market[login.random.choice(("ACME", "CRNE", "WIDE"))].price += login.random.choice((-1, 1)) * _PRICE_MOVE
        books.step(login, self._market, moment)

    def transaction(self, login: Login, account: Account, moment: datetime) -> Transaction:
        """A plausible posted row, not yet in the books."""
        return books.transaction(login, login.ledger, self._market, account, moment)

    def mint(self, login: Login) -> dict[str, Any]:
        """Credentials without a browser."""
        item = self._new_item(login)
        return {"access_token": item.access_token, "item_id": item.id}

    def public_token(self, login: Login) -> str:
        """A public token as Link would hand it to the application."""
        return self._new_public_token(login.name)

    def revoke(self, login: Login) -> None:
        """End the login's consent, as its owner would."""
        login.broken = "ITEM_LOGIN_REQUIRED/OAUTH_USER_REVOKED"

    def expire_access(self, login: Login) -> None:
        """Nothing: these access tokens never expire."""

    def configure(self, policy: dict[str, Any]) -> dict[str, Any]:
        """Change members of the policy; all of them afterwards."""
        self._policy = msgspec.convert(msgspec.to_builtins(self._policy) | policy, Policy)
        return dict(msgspec.to_builtins(self._policy))


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""


def _options(body: dict[str, Any]) -> dict[str, Any]:
    value = body.get("options")
    return value if isinstance(value, dict) else {}


def _whole(body: dict[str, Any], name: str, default: int, low: int, high: int) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or not low <= value <= high:
        raise PlaidError("INVALID_FIELD", f"{name} must be from {low} to {high}")
    return value


def _day(body: dict[str, Any], name: str) -> date:
    text = _text(body, name)
    if not text:
        raise PlaidError("MISSING_FIELDS", name)
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise PlaidError("INVALID_FIELD", f"{name} must be YYYY-MM-DD") from error


def _chosen(login: Login, body: dict[str, Any]) -> list[Account]:
    wanted = _options(body).get("account_ids")
    accounts = login.ledger.open_accounts()
    if wanted is None:
        return accounts
    known = {account.id for account in accounts}
    if not isinstance(wanted, list) or not all(isinstance(name, str) and name in known for name in wanted):
        raise PlaidError("INVALID_ACCOUNT_ID")
    return [account for account in accounts if account.id in wanted]
