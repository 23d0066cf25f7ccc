"""A SimpleFIN server as the protocol describes it, with what the Bridge does beyond it; two banks behind each login.

`broken` is `gen.auth`, or the code of an error with the number of a bank or an account: `con.auth/1`, `act.failed/0`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

from worker.sandbox.core import Caller, Login, Profile, Sandbox
from worker.sandbox.grants import token_digest
from worker.sandbox.ledger import Account, Transaction
from worker.sandbox.one_time import OneTimeTokens
from worker.sandbox.plain_books import PlainBooks
from worker.sandbox.wire import Answer, RefusedError, Request, array, basic_credentials, document, encode, identifier

HOME = "https://bridge.simplefin.org/simplefin"
BANKS = ("First Bank", "Second Bank")
_LONGEST, _RECOMMENDED = timedelta(days=90), timedelta(days=45)


class StandIn(PlainBooks):
    """Claims, and account sets of both versions of the protocol."""

    key = "simplefin"
    unknown_token = "https://nobody:SECRETWORD-1@bridge.simplefin.org/simplefin"  # noqa: S105 - made up

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._claims = OneTimeTokens(sandbox.clock)
        self._access: dict[str, tuple[str, Login]] = {}
        self._number = 0

    def consent(self, login: Login, asked: Mapping[str, str]) -> dict[str, str]:
        """A setup token of the login's owner."""
        claim = self._claims.hand_out(self._made_up("claim", login), login.name, 3600)
        return {"setup_token": base64.b64encode(f"{HOME}/claim/{claim}".encode()).decode()}

    def mint(self, login: Login) -> dict[str, Any]:
        """An access URL; those that the login has stay valid."""
        name, password = self._made_up("user", login), self._made_up("password", login)
        self._access[name] = password, login
        return {"access_token": HOME.replace("://", f"://{name}:{password}@")}

    def revoke(self, login: Login) -> None:
        """Ends all access URLs of the login."""
        self._access = {name: held for name, held in self._access.items() if held[1] is not login}

    def caller(self, request: Request) -> Caller:
        """The caller of a request; see `core.Profile`."""
        if request.path.startswith("/claim/"):
            return Caller("exchange", self._claims.login(request.path.removeprefix("/claim/")))
        name, _ = basic_credentials(request.header("authorization")) or ("", "")
        held = self._access.get(name)
        return Caller("data", held[1].name, name, 1, token_digest(name)) if held else Caller()

    def answer(self, request: Request, caller: Caller) -> Answer:
        """The answer to one request."""
        try:
            return self._answer(request)
        except RefusedError as refused:
            return refused.answer

    def _answer(self, request: Request) -> Answer:
        if request.path == "/info":
            return Answer(200, document(versions=["1.0", "2.0"]))
        if request.path.startswith("/claim/"):
            handed = self._claims.take(request.path.removeprefix("/claim/")) if request.method == "POST" else None
            if handed is None:
                return self.error("forbidden")
            url = self.mint(self.sandbox.logins[handed.login])["access_token"]
            return Answer(200, url.encode(), [(b"content-type", b"text/plain")])
        name, password = basic_credentials(request.header("authorization")) or ("", "")
        held = self._access.get(name)
        if held is None or held[0] != password:
            return self.error("forbidden")
        return self._account_set(held[1], request) if request.path == "/accounts" else self.error("not_found")

    def _account_set(self, login: Login, request: Request) -> Answer:
        login.served.requests += 1
        asked = parse_qsl(request.query, keep_blank_values=True)
        given = dict(asked)
        try:
            first, last = (_moment(given[name]) if name in given else None for name in ("start-date", "end-date"))
        except (ValueError, OverflowError):
            return self.error("bad_request")
        last = last or self.sandbox.clock.now()
        first = first or last - timedelta(days=1)
        errors: list[_Error] = []
        if last - first > _LONGEST:
            first = last - _LONGEST
            errors.append(("gen.api", "Requested date range exceeds limit of 90 days and was capped.", None, None))
        elif last - first > _RECOMMENDED:
            text = "Requested date range exceeds recommended range of 45 days. In the future, this may be capped."
            errors.append(("gen.api", text, None, None))
        only = {value for name, value in asked if name == "account"}
        listed = []
        accounts = login.ledger.open_accounts()
        for index, account in enumerate(accounts):
            trouble = _trouble(login, index, account)
            errors += trouble
            if not only or account.id in only:
                rows = None if "balances-only" in given or trouble else self._rows(login, account, first, last, given)
                listed.append(self._listed(account, index % 2, rows, given.get("version")))
        if login.broken == "gen.auth":
            errors.append(("gen.auth", "Authentication required", None, None))
        login.served.accounts |= {account.id for account in accounts}
        return _document(dict.fromkeys(errors), [*listed, *login.ledger.verbatim_accounts], given.get("version"))

    def _rows(
        self, login: Login, account: Account, first: datetime, last: datetime, given: dict[str, str]
    ) -> list[bytes]:
        def asked_for(row: Transaction) -> bool:
            return first <= row.moment < last and (row.status == "posted" or given.get("pending") == "1")

        rows = [row for row in account.by_time if asked_for(row) and login.visible(row)]
        login.served.window(rows, filter(asked_for, account.removed))
        return [*map(self.render, rows), *account.verbatim]

    def _listed(self, account: Account, bank: int, rows: list[bytes] | None, version: str | None) -> bytes:
        members: dict[str, Any] = {
            "id": account.id,
            "name": f"{account.name} ({account.mask})",
            "currency": account.currency,
            "balance": str(account.current),
            "balance-date": int(self.sandbox.clock.now().timestamp()) // 86_400 * 86_400,
        }
        if version == "2":
            members["conn_id"] = f"CON-{bank}"
        else:
            members["org"] = {"domain": f"bank{bank}.example", "name": BANKS[bank], "sfin-url": HOME}
        return document(**members, transactions=array(rows or []))

    def written(self, row: Transaction) -> dict[str, Any]:
        """One transaction as the Bridge writes it."""
        at = int(row.moment.timestamp())
        pending = row.status == "pending"
        return {
            "id": row.id,
            "posted": 0 if pending else at,
            "amount": str(row.amount),
            "description": row.description,
            "payee": row.merchant or "",
            "transacted_at": at,
            **({"pending": True} if pending else {}),
        }

    def _made_up(self, kind: str, login: Login) -> str:
        self._number += 1
        return identifier(self.sandbox.seed, kind, login.name, self._number)


_Error = tuple[str, str, str | None, str | None]


def _moment(seconds: str) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)


def _trouble(login: Login, index: int, account: Account) -> list[_Error]:
    code, number = login.trouble
    if code.startswith("con.") and number == str(index % 2):
        return [(code, f"Connection to {BANKS[index % 2]} may need attention", f"CON-{index % 2}", None)]
    if code.startswith("act.") and number == str(index):
        return [(code, "The account could not be read", f"CON-{index % 2}", account.id)]
    return []


def _document(errors: Mapping[_Error, None], accounts: list[bytes], version: str | None) -> Answer:
    if version != "2":
        return Answer(200, document(errors=[text for _, text, *_ in errors], accounts=array(accounts)))
    names = ("code", "msg", "conn_id", "account_id")
    told = [{name: value for name, value in zip(names, error, strict=True) if value} for error in errors]
    banks = [{"conn_id": f"CON-{n}", "name": bank, "org_id": f"ORG-{n}"} for n, bank in enumerate(BANKS)]
    return Answer(200, document(errlist=told, connections=encode(banks), accounts=array(accounts)))


STAND_IN: type[Profile] = StandIn
