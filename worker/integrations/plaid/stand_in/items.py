"""Plaid Items and their access tokens and public tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Any

import msgspec

from worker.integrations.plaid.stand_in.errors import PlaidError
from worker.sandbox.core import Login, Sandbox, Served
from worker.sandbox.one_time import OneTimeTokens
from worker.sandbox.wire import identifier

PRODUCTS = ["transactions", "investments", "liabilities"]
_PUBLIC_TOKEN_SECONDS = 1800
_RESETS = count()


@dataclass(slots=True, eq=False)
class Item:
    """One linked login; `swaps` counts how often its access token was replaced; `webhook` is where its hooks go."""

    id: str
    login: Login
    access_token: str
    swaps: int = 0
    webhook: str | None = None


class Items:
    """Every Item that exists now, at most one for a login."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._by_token: dict[str, Item] = {}
        self._of_login: dict[str, Item] = {}
        self._public = OneTimeTokens(sandbox.clock)
        self._webhooks: dict[str, str | None] = {}
        self._made: Counter[str] = Counter()
        self._serial = 0
        self._reset = next(_RESETS)  # after a reset, as in the next test, no Item has the id of an earlier one

    def request_id(self) -> str:
        """A new id, for an answer or for something else that must be unique."""
        self._serial += 1
        return f"sandbox{self._serial:08d}"

    def by_token(self, access_token: str) -> Item | None:
        """The Item of an access token; None if there is none."""
        return self._by_token.get(access_token)

    def of_login(self, login: str) -> Item | None:
        """The Item of a login; None if it has none."""
        return self._of_login.get(login)

    def is_linked(self, login: str) -> bool:
        """Whether the login has an Item."""
        return login in self._of_login

    def login_of_public(self, public_token: str) -> str | None:
        """The login of a public token that is not exchanged yet; None if there is none."""
        return self._public.login(public_token)

    def new_public_token(self, login: str, webhook: str | None = None) -> str:
        """A public token as Link gives it to the application, valid for one exchange within half an hour."""
        token = f"public-sandbox-{identifier(self._sandbox.seed, 'public', login, self.request_id(), length=36)}"
        self._webhooks[token] = webhook
        return self._public.hand_out(token, login, _PUBLIC_TOKEN_SECONDS)

    def exchange(self, public_token: str) -> Item:
        """A new Item. Raises PlaidError when the token is unknown, used or too old."""
        handed = self._public.take(public_token)
        if handed is None:
            raise PlaidError("INVALID_PUBLIC_TOKEN")
        item = self.create(self._sandbox.logins[handed.login])
        item.webhook = self._webhooks.pop(public_token, None)
        return item

    def create(self, login: Login) -> Item:
        """A new Item, which replaces the login's earlier one. Ids are valid within one Item, so all of them are new."""
        earlier = self._of_login.get(login.name)
        if earlier is not None:
            self.remove(earlier)
        self._made[login.name] += 1
        # Not the number of requests so far: a sandbox that starts anew makes the Items that it made before.
        number = f"{self._reset}.{self._made[login.name]}"
        if self._made[login.name] > 1:
            login.ledger.give_new_ids(lambda old: identifier(self._sandbox.seed, login.name, number, old))
            login.served = Served()
        item = Item(
            identifier(self._sandbox.seed, "item", login.name, number), login, self._access_token(login.name, number)
        )
        self._by_token[item.access_token] = self._of_login[login.name] = item
        login.visible_from = None
        return item

    def remove(self, item: Item) -> None:
        """Ends an Item; its access token is then no longer valid."""
        self._by_token.pop(item.access_token, None)
        self._of_login.pop(item.login.name, None)

    def swap(self, item: Item) -> str:
        """Replaces the access token; the old one is invalid at once."""
        self._by_token.pop(item.access_token)
        item.swaps += 1
        item.access_token = self._access_token(item.id, str(item.swaps))
        self._by_token[item.access_token] = item
        return item.access_token

    def describe(self, item: Item) -> dict[str, Any]:
        """The `item` member of answers."""
        broken = item.login.broken
        error = None
        if broken is not None:
            code, _, reason = broken.partition("/")
            error = msgspec.json.decode(PlaidError(code, reason=reason or None).answer(self.request_id()).body)
        return {
            "item_id": item.id,
            "institution_id": f"ins_{item.login.ordinal}",
            "institution_name": f"Sandbox Bank {item.login.ordinal}",
            "webhook": item.webhook,
            "auth_method": None,
            "error": error,
            "available_products": ["balance"],
            "billed_products": PRODUCTS,
            "products": PRODUCTS,
            "consent_expiration_time": None,
            "update_type": "background",
        }

    def _access_token(self, *parts: str) -> str:
        return f"access-sandbox-{identifier(self._sandbox.seed, 'access', *parts, length=36)}"
