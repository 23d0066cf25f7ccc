"""The stand-in of Harbour: whoever signs with a key that it gave out gets tokens; one feed of changes for a login."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar

from worker.sandbox import change_feed
from worker.sandbox.core import Caller, Login, Profile, Sandbox
from worker.sandbox.ledger import Transaction
from worker.sandbox.oauth import OAuthProfile
from worker.sandbox.plain_books import PlainBooks
from worker.sandbox.wire import JSON_HEADER, Answer, Request, encode, json_answer

PAGE = 40


class StandIn(OAuthProfile, PlainBooks):
    """Key files, accounts with balances, changes by bookmark."""

    key = "harbour"
    client = ("sandbox-app", "sandbox-secret")
    credentials: ClassVar[Mapping[str, str]] = {"client_id": "sandbox-app", "client_secret": "sandbox-secret"}
    access_format, refresh_format = "harbour-pass-{}", "harbour-again-{}"

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._keys: dict[str, tuple[str, Login]] = {}

    def consent(self, login: Login, asked: Mapping[str, str]) -> dict[str, str]:
        """A new key of the login's owner, as it is in the file that they save."""
        key_id = f"{login.name}-key-{len(self._keys) + 1}"
        lines = ["-----BEGIN HARBOUR KEY-----", *(secrets.token_hex(24) for _ in range(3)), "-----END HARBOUR KEY-----"]
        self._keys[key_id] = "\n".join(lines), login
        return {"key_id": key_id, "key_file": "\n".join(lines)}

    def caller(self, request: Request) -> Caller:
        if request.path != "/open":
            return super().caller(request)
        held = self._keys.get(request.form().get("key_id", ""))
        return Caller("exchange", held[1].name if held else None)

    def data(self, request: Request) -> Answer:
        if request.path == "/open":
            return self._opened(request.form())
        login = self.authorised(request)
        login.served.requests += 1
        return self._accounts_of(login) if request.path == "/accounts" else self._changes(login, request)

    def _opened(self, form: Mapping[str, str]) -> Answer:
        key, login = self._keys.get(form.get("key_id", ""), ("", None))
        signed = hmac.new(key.encode(), form.get("key_id", "").encode(), hashlib.sha256).hexdigest()
        if login is None or not hmac.compare_digest(signed, form.get("signature", "")):
            return json_answer(400, {"error": "invalid_grant", "error_description": "no such key, or not signed by it"})
        minted = self.mint(login)
        return json_answer(200, {name: minted[name] for name in ("access_token", "refresh_token", "expires_in")})

    def _accounts_of(self, login: Login) -> Answer:
        accounts = login.ledger.open_accounts()
        login.served.accounts |= {account.id for account in accounts}
        listed = [{"number": one.id, "title": one.name, "worth": one.current} for one in accounts]
        return json_answer(200, {"accounts": listed})

    def _changes(self, login: Login, request: Request) -> Answer:
        asked = request.parameters().get("since", "")
        try:
            begin = change_feed.start(asked, login, login.name, "", mutation_stops=False)
        except change_feed.BadCursorError:
            return self.error("bad_request")
        page = change_feed.page(login, begin, PAGE, accounts=login.ledger.accounts, removal=lambda _, id_: encode(id_))
        written = b",".join([*page.added, *page.modified])
        body = b'{"written":[%b],"erased":[%b],"bookmark":%b,"more":%b}' % (
            written,
            b",".join(page.removed),
            encode(page.cursor.write(login.name)),
            encode(page.more),
        )
        return Answer(200, body, [JSON_HEADER])

    def written(self, row: Transaction) -> dict[str, Any]:
        return {
            "id": row.id,
            "account": row.account.id,
            "paid": -row.amount,
            "on": row.date.isoformat(),
            "open": row.status == "pending",
        }


STAND_IN: type[Profile] = StandIn
