"""The Schwab Trader API as published: OAuth below `/v1/oauth`, data below `/trader/v1`."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import msgspec

from worker.integrations.schwab.stand_in import books, wire
from worker.sandbox.core import Caller, Login, Sandbox
from worker.sandbox.grants import token_digest
from worker.sandbox.ledger import Account, Ledger, Transaction
from worker.sandbox.oauth import OAuthProfile
from worker.sandbox.wire import Answer, RefusedError, Request, array, json_answer

APP_KEY = "sandbox-app"
APP_SECRET = "sandbox-secret"  # noqa: S105 - valid only in this stand-in
REDIRECT_URI = "https://127.0.0.1"

_DATA = "/trader/v1"
_MAX_ROWS = 3000
_MAX_RANGE = timedelta(days=366)
# The specification has milliseconds. A widely used client leaves them out, and the real API accepts that.
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
_TRANSACTIONS = re.compile(r"/accounts/([^/]+)/transactions(?:/([^/]+))?")
_DIGEST_NOTE = (
    "Exception while authenticating refresh token [tokenDigest={}, Exception=Failed refresh token authentication]"
)
_DEAD_SHAPES = ("unsupported_token_type", "invalid_grant", "invalid_client")


class SchwabProfile(OAuthProfile):
    """Grants, accounts and windows of transactions."""

    key = "schwab"
    credentials: ClassVar = {"app_key": APP_KEY, "app_secret": APP_SECRET, "redirect_uri": REDIRECT_URI}
    _moving = ("ACME", "BOLT", "CRNE", "WIDE")

    client = (APP_KEY, APP_SECRET)
    redirect_uri = REDIRECT_URI
    authorize_path = "/v1/oauth/authorize"
    token_path = "/v1/oauth/token"  # noqa: S105 - a path
    access_format = "I0.{}"
    refresh_format = "{}@"

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._answers = 0

    # Answers

    def answer(self, request: Request, caller: Caller) -> Answer:
        """The published answer to one request. All answers except those of the token endpoint have a correlation id."""
        answer = super().answer(request, caller)
        if request.path != self.token_path:
            self._answers += 1
            answer.headers.append((b"schwab-client-correlid", f"sandbox-{self._answers:012d}".encode()))
        return answer

    def error(self, name: str) -> Answer:
        """A published error by its name."""
        if name in _DEAD_SHAPES:
            return _dead_grant(name, "00000000")
        if name == "bad_app_secret":
            return self.wrong_client()
        status, message = {
            "unauthorized": (401, ""),
            "forbidden": (403, "Access is denied"),
            "not_found": (404, "Account not found"),
            "method_not_allowed": (405, "Method not allowed"),
            "internal": (500, "Unexpected server error"),
            "unavailable": (503, "Service has a temporary problem"),
        }[name]
        return _gateway_unauthorized() if status == 401 else _service_error(status, message)

    def rate_limited(self, request: Request, retry_after: str | None) -> Answer:
        """The published 429."""
        headers = [(b"retry-after", retry_after.encode("latin-1"))] if retry_after else []
        return json_answer(429, {"message": "Too many requests", "errors": []}, headers)

    def dead_grant(self, token: str, login: Login | None) -> Answer:
        """One of the three published bodies for a grant that has ended."""
        shape: str = self.policy.dead_grant
        if shape == "vary":
            shape = _DEAD_SHAPES[(login.ordinal if login else 0) % len(_DEAD_SHAPES)]
        return _dead_grant(shape, token_digest(token))

    def new_code(self) -> str:
        """A new authorization code. It ends in `@`, which is URL-encoded once in the callback."""
        return f"C0.{super().new_code()}@"

    def callback_parameters(self) -> dict[str, str]:
        """The additional parameter `session` of the callback."""
        return {"session": secrets.token_hex(16)}

    def data(self, request: Request) -> Answer:
        """Accounts, preferences and transactions."""
        if request.method != "GET" or not request.path.startswith(_DATA):
            raise RefusedError(_service_error(404, "Not found"))
        login = self.authorised(request)
        path = request.path.removeprefix(_DATA)
        ledger = login.ledger
        login.served.requests += 1
        if path == "/accounts/accountNumbers":
            pairs = [{"accountNumber": a.number, "hashValue": a.id} for a in ledger.open_accounts()]
            return json_answer(200, pairs)
        if path == "/userPreference":
            return self._preferences(login)
        if path == "/accounts":
            accounts = ledger.open_accounts()
            return Answer(200, array(self._accounts(login, accounts, request)))
        if match := _TRANSACTIONS.fullmatch(path):
            return self._transactions(login, self._account(login, match[1]), match[2], request)
        account = self._account(login, path.removeprefix("/accounts/"))
        return Answer(200, self._accounts(login, [account], request)[0])

    def _account(self, login: Login, hash_value: str) -> Account:
        account = login.ledger.accounts.get(hash_value)
        if account is None or account.closed:
            raise RefusedError(_service_error(404, "Account not found"))
        return account

    def _accounts(self, login: Login, accounts: list[Account], request: Request) -> list[bytes]:
        fields = request.parameters().get("fields", "")
        if fields not in ("", "positions"):
            raise RefusedError(_service_error(400, "Invalid fields", "fields: only positions is allowed"))
        login.served.accounts.update(account.id for account in accounts)
        if fields:
            for account in accounts:
                login.served.holdings = {pair for pair in login.served.holdings if pair[0] != account.id}
                login.served.holdings.update((account.id, security) for security in account.holdings)
        rendered = [wire.account(account, with_positions=bool(fields)) for account in accounts]
        return rendered + login.ledger.verbatim_accounts

    def _preferences(self, login: Login) -> Answer:
        accounts = [
            {"accountNumber": a.number, "primaryAccount": i == 0, "type": "BROKERAGE", "nickName": a.name}
            for i, a in enumerate(login.ledger.open_accounts())
        ]
        return json_answer(200, [{"accounts": accounts, "streamerInfo": [], "offers": []}])

    def _transactions(self, login: Login, account: Account, one: str | None, request: Request) -> Answer:
        if one is not None:
            row = login.ledger.transactions.get(one)
            if row is None or row.account is not account:
                raise RefusedError(_service_error(404, "Transaction not found"))
            return Answer(200, self.render(row))
        given = request.parameters()
        missing = [name for name in ("startDate", "endDate", "types") if not given.get(name)]
        if missing:
            raise RefusedError(_service_error(400, "Bad request", *(f"{name} is required" for name in missing)))
        start, end = _parse_date(given["startDate"]), _parse_date(given["endDate"])
        if end < start or end - start > _MAX_RANGE:
            raise RefusedError(_service_error(400, "Bad request", "The date range must be between 0 and 1 year"))
        kinds = set(given["types"].split(","))
        if not kinds <= set(books.TRANSACTION_TYPES):
            raise RefusedError(_service_error(400, "Bad request", "types has an unknown value"))
        symbol = given.get("symbol")
        rows = [
            row
            for row in reversed(account.between(start, end))
            if row.kind in kinds and (symbol is None or (row.security is not None and row.security.symbol == symbol))
        ][:_MAX_ROWS]
        login.served.window(rows, (row for row in account.removed if start <= row.moment <= end))
        records = [self.render(row) for row in rows] + account.verbatim
        return Answer(200, array(records))

    # What the core asks for

    def furnish(self, login: Login) -> Ledger:
        """Books for a new login."""
        return books.furnish(login, self.market)

    def move(self, login: Login, moment: datetime) -> None:
        """Change a login's books."""
        books.step(login, self.market, moment)

    def written(self, row: Transaction) -> dict[str, Any]:
        """One element of the transactions answer."""
        return wire.transaction(row)

    def transaction(self, login: Login, account: Account, moment: datetime) -> Transaction:
        """A realistic posted row that is not in the books yet."""
        return books.transaction(login, login.ledger, self.market, account, moment, kind="ACH_RECEIPT")


def _dead_grant(shape: str, digest: str) -> Answer:
    if shape == "invalid_grant":
        return json_answer(400, {"error": "invalid_grant", "error_description": "The refresh token is not valid"})
    if shape == "invalid_client":
        return json_answer(401, {"error": "invalid_client", "error_description": "refresh token invalid"})
    inner = msgspec.json.encode(
        {"error_description": _DIGEST_NOTE.format(digest), "error": "refresh_token_authentication_error"}
    ).decode()
    description = f'400 Bad Request: "{inner}"'
    return json_answer(400, {"error": "unsupported_token_type", "error_description": description})


def _service_error(status: int, message: str, *errors: str) -> Answer:
    return json_answer(status, {"message": message, "errors": list(errors)})


def _gateway_unauthorized() -> Answer:
    """The gateway's 401. The published `ServiceError` has texts in `errors`, but users report objects for this 401."""
    error = {
        "id": "00000000-0000-4000-8000-000000000401",
        "status": 401,
        "title": "Unauthorized",
        "detail": "Client not authorized",
    }
    return json_answer(401, {"errors": [error]})


def _parse_date(text: str) -> datetime:
    if _DATE.fullmatch(text):
        try:
            return datetime.fromisoformat(text).astimezone(UTC)
        except ValueError:
            pass
    raise RefusedError(_service_error(400, "Bad request", "Dates must be yyyy-MM-dd'T'HH:mm:ss.SSSZ"))


STAND_IN = SchwabProfile
