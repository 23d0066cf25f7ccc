"""The Plaid API as published. Every call is a POST whose body has the credentials of application and Item."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, ClassVar

from worker.integrations.plaid.stand_in import books, wire
from worker.integrations.plaid.stand_in.arguments import options_of, text_of
from worker.integrations.plaid.stand_in.data import Data
from worker.integrations.plaid.stand_in.errors import LIMITS, PlaidError
from worker.integrations.plaid.stand_in.hooks import HookKeys, body_of
from worker.integrations.plaid.stand_in.items import PRODUCTS, Item, Items
from worker.integrations.plaid.stand_in.link import SCRIPT_PATH, LinkPage
from worker.sandbox.core import Caller, Login, Sandbox
from worker.sandbox.grants import token_digest
from worker.sandbox.hooks import Outgoing
from worker.sandbox.ledger import Account, Ledger, Transaction
from worker.sandbox.plain_books import PlainBooks
from worker.sandbox.wire import Answer, Request, identifier, json_answer

CLIENT_ID = "sandbox-client"
SECRET = "sandbox-secret"  # noqa: S105 - valid only in this stand-in

# The kind of hook for each event of the sandbox.
_KINDS = {
    "changed": "TRANSACTIONS/SYNC_UPDATES_AVAILABLE",
    "revoked": "ITEM/USER_PERMISSION_REVOKED",
    "broken": "ITEM/ERROR",
    "repaired": "ITEM/LOGIN_REPAIRED",
}
# The type of hook for each code that `/sandbox/item/fire_webhook` accepts without a type.
_TYPES = {
    "SYNC_UPDATES_AVAILABLE": "TRANSACTIONS",
    "DEFAULT_UPDATE": "TRANSACTIONS",
    "NEW_ACCOUNTS_AVAILABLE": "ITEM",
    "USER_PERMISSION_REVOKED": "ITEM",
    "USER_ACCOUNT_REVOKED": "ITEM",
    "PENDING_DISCONNECT": "ITEM",
    "LOGIN_REPAIRED": "ITEM",
}


class PlaidProfile(PlainBooks):
    """Items, their feeds and their books."""

    key = "plaid"
    credentials: ClassVar = {"client_id": CLIENT_ID, "secret": SECRET}
    addresses: ClassVar = {"link_url": SCRIPT_PATH}
    cash_is_a_holding = True
    kinds = books.KINDS
    usual = books.USUAL

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._items = Items(sandbox)
        self._hook_keys = HookKeys(sandbox.seed, sandbox.clock)
        self._link = LinkPage(self, self._items)
        data = Data(self, self._items)
        self._open: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "/link/token/create": self._link_token,
            "/sandbox/public_token/create": self._public_token,
            "/item/public_token/exchange": self._exchange,
            "/institutions/get_by_id": self._institution,
            "/webhook_verification_key/get": self._hook_key,
        }
        self._of_item: dict[str, Callable[[Item, dict[str, Any]], Answer]] = {
            "/item/get": self._item_get,
            "/item/remove": self._item_remove,
            "/item/webhook/update": self._webhook_update,
            "/sandbox/item/fire_webhook": self._fire_webhook,
            "/item/access_token/invalidate": self._invalidate,
            "/sandbox/item/reset_login": self._reset_login,
            "/accounts/get": data.accounts,
            "/accounts/balance/get": data.accounts,
            "/transactions/sync": data.sync,
            "/investments/holdings/get": data.holdings,
            "/investments/transactions/get": data.investments,
            "/liabilities/get": data.liabilities,
        }

    # Who is calling

    def caller(self, request: Request) -> Caller:
        """The caller of a request; see `core.Profile`."""
        if request.path == "/item/public_token/exchange":
            return Caller("exchange", login=self._items.login_of_public(text_of(request.json(), "public_token")))
        token = text_of(request.json(), "access_token")
        item = self._items.by_token(token)
        return Caller("data", item.login.name, item.id, item.swaps, token_digest(token)) if item else Caller()

    # Answers

    def answer(self, request: Request, caller: Caller) -> Answer:
        """The published answer to one request."""
        try:
            return self._link.answer(request) or self._dispatch(request)
        except PlaidError as error:
            return error.answer(self._items.request_id())

    def error(self, name: str) -> Answer:
        """A published error by its name."""
        return PlaidError(name).answer(self._items.request_id())

    def rate_limited(self, request: Request, retry_after: str | None) -> Answer:
        """The published 429."""
        answer = self.error(LIMITS.get(request.path, "RATE_LIMIT"))
        if retry_after:
            answer.headers.append((b"retry-after", retry_after.encode("latin-1")))
        return answer

    def _dispatch(self, request: Request) -> Answer:
        body = request.json()
        client = text_of(body, "client_id") or request.header("plaid-client-id")
        secret = text_of(body, "secret") or request.header("plaid-secret")
        if request.method != "POST" or (request.path not in self._open and request.path not in self._of_item):
            raise PlaidError("NOT_FOUND")
        if (client, secret) != (CLIENT_ID, SECRET):
            raise PlaidError("INVALID_API_KEYS")
        if request.path in self._open:
            return self._open[request.path](body)
        item = self._items.by_token(text_of(body, "access_token"))
        if item is None:
            raise PlaidError("INVALID_ACCESS_TOKEN")
        if item.login.broken and not request.path.startswith(("/item/", "/sandbox/")):
            code, _, reason = item.login.broken.partition("/")
            raise PlaidError(code, reason=reason or None)
        item.login.served.requests += 1
        return self._of_item[request.path](item, body)

    # Linking

    def _link_token(self, body: dict[str, Any]) -> Answer:
        for name in ("client_name", "language", "country_codes", "user"):
            if name not in body:
                raise PlaidError("MISSING_FIELDS", name)
        if not text_of(body["user"] if isinstance(body["user"], dict) else {}, "client_user_id"):
            raise PlaidError("MISSING_FIELDS", "user.client_user_id")
        item = self._items.by_token(text_of(body, "access_token"))
        if "access_token" in body and item is None:
            raise PlaidError("INVALID_ACCESS_TOKEN")
        expires = (self.sandbox.clock.now() + timedelta(hours=4)).strftime("%Y-%m-%dT%H:%M:%SZ")
        number = self._items.request_id()
        token = f"link-sandbox-{identifier('link', number, length=32)}"
        self._link.opened(token, item)
        return json_answer(200, {"link_token": token, "expiration": expires, "request_id": number})

    def _public_token(self, body: dict[str, Any]) -> Answer:
        wanted = text_of(options_of(body), "override_username")
        name = wanted or self.next_login(self._items.is_linked)
        login = self.sandbox.logins.get(name or "")
        if login is None or login.profile is not self:
            raise PlaidError("INVALID_INSTITUTION")
        token = self._items.new_public_token(login.name, text_of(options_of(body), "webhook") or None)
        return json_answer(200, {"public_token": token, "request_id": self._items.request_id()})

    def _exchange(self, body: dict[str, Any]) -> Answer:
        item = self._items.exchange(text_of(body, "public_token"))
        answer = {"access_token": item.access_token, "item_id": item.id, "request_id": self._items.request_id()}
        return json_answer(200, answer)

    def _institution(self, body: dict[str, Any]) -> Answer:
        name = text_of(body, "institution_id")
        if not re.fullmatch(r"ins_\d+", name):
            raise PlaidError("INVALID_INSTITUTION")
        institution = {
            "institution_id": name,
            "name": f"Sandbox Bank {name.removeprefix('ins_')}",
            "products": PRODUCTS,
            "country_codes": ["US"],
            "url": None,
            "primary_color": None,
            "logo": None,
            "routing_numbers": [],
            "oauth": False,
            "connection_availability": "SUPPORTED",
        }
        return json_answer(200, {"institution": institution, "request_id": self._items.request_id()})

    def _item_get(self, item: Item, body: dict[str, Any]) -> Answer:
        described = self._items.describe(item)
        return json_answer(200, {"item": described, "status": None, "request_id": self._items.request_id()})

    def _item_remove(self, item: Item, body: dict[str, Any]) -> Answer:
        self._items.remove(item)
        return json_answer(200, {"request_id": self._items.request_id()})

    def _webhook_update(self, item: Item, body: dict[str, Any]) -> Answer:
        item.webhook = text_of(body, "webhook") or None
        if item.webhook is not None:
            self.sandbox.tell(item.login, "ITEM/WEBHOOK_UPDATE_ACKNOWLEDGED")
        return json_answer(200, {"item": self._items.describe(item), "request_id": self._items.request_id()})

    def _fire_webhook(self, item: Item, body: dict[str, Any]) -> Answer:
        code = text_of(body, "webhook_code")
        type_ = text_of(body, "webhook_type") or _TYPES.get(code, "")
        if not code or not type_:
            raise PlaidError("INVALID_FIELD", "webhook_code")
        fired = self.sandbox.tell(item.login, f"{type_}/{code}")
        return json_answer(200, {"webhook_fired": fired, "request_id": self._items.request_id()})

    # Hooks

    def _hook_key(self, body: dict[str, Any]) -> Answer:
        key = self._hook_keys.public(text_of(body, "key_id"))
        return json_answer(200, {"key": key, "request_id": self._items.request_id()})

    def want_hooks(self, login: Login, address: str | None) -> None:
        """Sets the address for the hooks of the login's Item."""
        item = self._items.of_login(login.name)
        if item is not None:
            item.webhook = address

    def hook(self, login: Login, event: str) -> Outgoing | None:
        """The hook about a login; None if its Item has no address for hooks, or has never been asked for changes."""
        item = self._items.of_login(login.name)
        if item is None or item.webhook is None or (event == "changed" and login.visible_from is None):
            return None
        kind, more = _KINDS.get(event, event), {}
        if kind == "ITEM/ERROR":
            more["error"] = self._items.describe(item)["error"]
        if kind == "ITEM/WEBHOOK_UPDATE_ACKNOWLEDGED":
            more |= {"new_webhook_url": item.webhook, "error": None}
        # Tells equal hooks of one second apart; Plaid adds members, too, and its clients must accept unknown ones.
        more["sandbox_serial"] = self._items.request_id()
        body = body_of(kind, item, **more)
        return Outgoing(login.name, kind, item.webhook, body, partial(self.sign_hook, body))

    def sign_hook(self, body: bytes) -> Mapping[str, str]:
        """The header with the signature of a body."""
        return {"Plaid-Verification": self._hook_keys.sign(body)}

    def rotate_hook_key(self) -> None:
        """Replaces the key that signs hooks."""
        self._hook_keys.rotate()

    # More about Items

    def _invalidate(self, item: Item, body: dict[str, Any]) -> Answer:
        token = self._items.swap(item)
        return json_answer(200, {"new_access_token": token, "request_id": self._items.request_id()})

    def _reset_login(self, item: Item, body: dict[str, Any]) -> Answer:
        item.login.broken = "ITEM_LOGIN_REQUIRED"
        self.sandbox.tell(item.login, "broken")
        return json_answer(200, {"reset_login": True, "request_id": self._items.request_id()})

    # What the core asks for

    def moves(self, account: Account) -> bool:
        """Whether an account gets new transactions: loans other than student loans are listed but get none."""
        return books.in_feed(account) or account.type == "investment"

    def fill(self, login: Login, ledger: Ledger, account: Account) -> None:
        """Adds the first positions of an investment account."""
        if account.type == "investment":
            books.fill(account, login, ledger, self.market)

    def row(
        self, login: Login, ledger: Ledger, account: Account, moment: datetime, *, past: bool = False
    ) -> Transaction:
        """An invented row; for an investment account, with Plaid's words."""
        row = super().row(login, ledger, account, moment, past=past)
        if account.type == "investment":
            books.investment(row, login, ledger, self.market, past=past)
        return row

    def written(self, row: Transaction) -> dict[str, Any]:
        """One transaction as Plaid writes it, from the feed or from an investment account."""
        return (wire.investment if row.account.type == "investment" else wire.transaction)(row)

    def mint(self, login: Login) -> dict[str, Any]:
        """Creates credentials without a browser."""
        item = self._items.create(login)
        return {"access_token": item.access_token, "item_id": item.id}

    def consent(self, login: Login, asked: Mapping[str, str]) -> dict[str, str]:
        """A public token as Link gives it to the application. The user has then also logged in again.

        No hook tells of it: LOGIN_REPAIRED is sent when the user has logged in elsewhere, not in our own form.
        """
        if login.broken and login.broken.startswith("ITEM_LOGIN_REQUIRED"):
            login.broken = None
        return {"public_token": self._items.new_public_token(login.name)}

    def revoke(self, login: Login) -> None:
        """Ends the login's consent, as its owner would do it."""
        login.broken = "ITEM_LOGIN_REQUIRED/OAUTH_USER_REVOKED"


STAND_IN = PlaidProfile
