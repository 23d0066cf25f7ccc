"""The Schwab Trader API as published: OAuth below `/v1/oauth`, data below `/trader/v1`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import msgspec

from worker.integrations.schwab.stand_in import books, wire
from worker.sandbox.core import Caller, Login, Profile, Sandbox
from worker.sandbox.grants import DeadGrantError, Grants, TokenPair, token_digest
from worker.sandbox.ledger import Account, Ledger, Transaction
from worker.sandbox.wire import JSON_HEADER, Answer, Request, basic_credentials, json_answer

APP_KEY = "sandbox-app"
APP_SECRET = "sandbox-secret"  # noqa: S105 - opens nothing but this stand-in
REDIRECT_URI = "https://127.0.0.1"

_TOKEN_PATH = "/v1/oauth/token"  # noqa: S105 - a path
_DATA = "/trader/v1"
_MAX_ROWS = 3000
_MAX_RANGE = timedelta(days=366)
# The milliseconds are in the specification; a well-used client leaves them out and is served.
_DATE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
_TRANSACTIONS = re.compile(r"/accounts/([^/]+)/transactions(?:/([^/]+))?")
_DIGEST_NOTE = (
    "Exception while authenticating refresh token [tokenDigest={}, Exception=Failed refresh token authentication]"
)
_DEAD_SHAPES = ("unsupported_token_type", "invalid_grant", "invalid_client")


class _RefusedError(Exception):
    """Carries the answer that ends a request early."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class SchwabProfile(Profile):
    """Grants, accounts and windows of transactions."""

    key = "schwab"
    credentials: ClassVar = {"app_key": APP_KEY, "app_secret": APP_SECRET, "redirect_uri": REDIRECT_URI}
    _moving = ("ACME", "BOLT", "CRNE", "WIDE")

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._grants = Grants(self.key, sandbox.seed, sandbox.clock)
        self._codes: dict[str, tuple[str, str, float]] = {}
        self._answers = 0

    # Who is calling

    def caller(self, request: Request) -> Caller:
        """Who is calling: see `core.Profile`."""
        if request.path == _TOKEN_PATH:
            form = request.form()
            if form.get("grant_type") != "refresh_token":
                code = self._codes.get(form.get("code", ""))
                return Caller("exchange", login=code[0] if code else None)
            token = form.get("refresh_token", "")
            found = self._grants.lookup(token)
            if found is None:
                return Caller("refresh", token=token_digest(token))
            grant, generation = found
            return Caller("refresh", grant.login, grant.id, generation, token_digest(token))
        held = self._grants.bearer(request.header("authorization").removeprefix("Bearer "))
        return Caller() if held is None else Caller("data", held.login, held.id, held.generation)

    # Answers

    def answer(self, request: Request, caller: Caller) -> Answer:
        """The published answer to one request."""
        try:
            if request.path == _TOKEN_PATH:
                return self._token(request)
            answer = self._authorize(request) if request.path == "/v1/oauth/authorize" else self._data(request)
        except _RefusedError as refused:
            answer = refused.answer
        self._answers += 1
        answer.headers.append((b"schwab-client-correlid", f"sandbox-{self._answers:012d}".encode()))
        return answer

    def error(self, name: str) -> Answer:
        """A published error by its name."""
        if name in _DEAD_SHAPES:
            return _dead_grant(name, "00000000")
        if name == "bad_app_secret":
            return json_answer(401, {"error": "invalid_client", "error_description": "Unauthorized"})
        status, message = {
            "unauthorized": (401, ""),
            "forbidden": (403, "Access is denied"),
            "not_found": (404, "Account not found"),
            "internal": (500, "Unexpected server error"),
            "unavailable": (503, "Service has a temporary problem"),
        }[name]
        return _gateway_unauthorized() if status == 401 else _service_error(status, message)

    def rate_limited(self, request: Request, retry_after: str | None) -> Answer:
        """The published 429."""
        headers = [(b"retry-after", retry_after.encode("latin-1"))] if retry_after else []
        return json_answer(429, {"message": "Too many requests", "errors": []}, headers)

    def _token(self, request: Request) -> Answer:
        if request.method != "POST":
            return _service_error(405, "Method not allowed")
        if basic_credentials(request.header("authorization")) != (APP_KEY, APP_SECRET):
            return self.error("bad_app_secret")
        form = request.form()
        match form.get("grant_type"):
            case "refresh_token":
                return self._refresh(form.get("refresh_token", ""))
            case "authorization_code":
                return self._exchange(form)
            case _:
                return json_answer(400, {"error": "unsupported_grant_type", "error_description": "grant_type"})

    def _refresh(self, token: str) -> Answer:
        found = self._grants.lookup(token)
        try:
            _, pair = self._grants.refresh(token)
        except DeadGrantError:
            shape: str = self._grants.policy.dead_grant
            if shape == "vary":
                ordinal = self.sandbox.logins[found[0].login].ordinal if found else 0
                shape = _DEAD_SHAPES[ordinal % len(_DEAD_SHAPES)]
            return _dead_grant(shape, token_digest(token))
        return _token_answer(pair, rotated=True)

    def _exchange(self, form: dict[str, str]) -> Answer:
        # Single use: a code is gone after the first attempt, good or bad.
        login, redirect_uri, expires = self._codes.pop(form.get("code", ""), ("", "", 0.0))
        if not login or self.sandbox.clock.seconds() >= expires or form.get("redirect_uri") != redirect_uri:
            return json_answer(400, {"error": "invalid_grant", "error_description": "AuthorizationCode is invalid"})
        _, pair = self._grants.issue(login)
        return _token_answer(pair, rotated=False)

    def _authorize(self, request: Request) -> Answer:
        given = request.parameters()
        if given.get("client_id") != APP_KEY or given.get("response_type", "code") != "code":
            raise _RefusedError(json_answer(400, {"error": "invalid_client", "error_description": "Unknown client"}))
        redirect_uri = given.get("redirect_uri", "")
        if not redirect_uri.startswith(("https://", "http://127.0.0.1")):
            raise _RefusedError(json_answer(400, {"error": "invalid_request", "error_description": "redirect_uri"}))
        name = given.get("login") or self.next_login(lambda name: self._grants.of_login(name) is not None)
        if name is None or name not in self.sandbox.logins:
            raise _RefusedError(_service_error(404, "No such login"))
        location = self.callback_url(name, redirect_uri, given.get("state"))
        return Answer(302, b"", [(b"location", location.encode())])

    def callback_url(self, login: str, redirect_uri: str, state: str | None) -> str:
        """Where the browser lands after the login's owner agreed: the code ends in `@`, URL-encoded once."""
        code = f"C0.{secrets.token_urlsafe(24)}@"
        expires = self.sandbox.clock.seconds() + self._grants.policy.code_seconds
        self._codes[code] = (login, redirect_uri, expires)
        query = f"code={quote(code, safe='')}&session={secrets.token_hex(16)}"
        if state is not None:
            query += "&" + urlencode({"state": state})
        return f"{redirect_uri}{'&' if '?' in redirect_uri else '?'}{query}"

    def _data(self, request: Request) -> Answer:
        if request.method != "GET" or not request.path.startswith(_DATA):
            raise _RefusedError(_service_error(404, "Not found"))
        login = self._authorised(request)
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
            return Answer(200, b"[" + b",".join(self._accounts(login, accounts, request)) + b"]", [JSON_HEADER])
        if match := _TRANSACTIONS.fullmatch(path):
            return self._transactions(login, self._account(login, match[1]), match[2], request)
        account = self._account(login, path.removeprefix("/accounts/"))
        return Answer(200, self._accounts(login, [account], request)[0], [JSON_HEADER])

    def _authorised(self, request: Request) -> Login:
        scheme, _, token = request.header("authorization").partition(" ")
        grant = self._grants.bearer(token)
        if scheme != "Bearer" or grant is None or not self._grants.admits(token):
            raise _RefusedError(_gateway_unauthorized())
        return self.sandbox.logins[grant.login]

    def _account(self, login: Login, hash_value: str) -> Account:
        account = login.ledger.accounts.get(hash_value)
        if account is None or account.closed:
            raise _RefusedError(_service_error(404, "Account not found"))
        return account

    def _accounts(self, login: Login, accounts: list[Account], request: Request) -> list[bytes]:
        fields = request.parameters().get("fields", "")
        if fields not in ("", "positions"):
            raise _RefusedError(_service_error(400, "Invalid fields", "fields: only positions is allowed"))
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
                raise _RefusedError(_service_error(404, "Transaction not found"))
            return Answer(200, wire.transaction(row))
        given = request.parameters()
        missing = [name for name in ("startDate", "endDate", "types") if not given.get(name)]
        if missing:
            raise _RefusedError(_service_error(400, "Bad request", *(f"{name} is required" for name in missing)))
        start, end = _parse_date(given["startDate"]), _parse_date(given["endDate"])
        if end < start or end - start > _MAX_RANGE:
            raise _RefusedError(_service_error(400, "Bad request", "The date range must be between 0 and 1 year"))
        kinds = set(given["types"].split(","))
        if not kinds <= set(books.TRANSACTION_TYPES):
            raise _RefusedError(_service_error(400, "Bad request", "types has an unknown value"))
        symbol = given.get("symbol")
        rows = [
            row
            for row in reversed(account.between(start, end))
            if row.kind in kinds and (symbol is None or (row.security is not None and row.security.symbol == symbol))
        ][:_MAX_ROWS]
        login.served.window(rows, (row for row in account.removed if start <= row.moment <= end))
        records = [wire.transaction(row) for row in rows] + account.verbatim
        return Answer(200, b"[" + b",".join(records) + b"]", [JSON_HEADER])

    # What the core asks for

    def furnish(self, login: Login) -> Ledger:
        """Books for a new login."""
        return books.furnish(login, self.market)

    def move(self, login: Login, moment: datetime) -> None:
        """Change a login's books."""
        books.step(login, self.market, moment)

    def render(self, row: Transaction) -> bytes:
        """One transaction."""
        return wire.transaction(row)

    def transaction(self, login: Login, account: Account, moment: datetime) -> Transaction:
        """A plausible posted row, not yet in the books."""
        return books.transaction(login, login.ledger, self.market, account, moment, kind="ACH_RECEIPT")

    def mint(self, login: Login) -> dict[str, Any]:
        """Credentials without a browser."""
        grant, pair = self._grants.issue(login.name)
        return {
            "access_token": pair.access_token,
            "refresh_token": pair.refresh_token,
            "expires_in": pair.expires_in,
            "grant": grant.id,
            "grant_expires_in": self._grants.policy.grant_seconds,
        }

    def revoke(self, login: Login) -> None:
        """End the login's consent, as its owner would."""
        grant = self._grants.of_login(login.name)
        if grant is not None:
            self._grants.kill(grant, "revoked")

    def expire_access(self, login: Login) -> None:
        """Let the login's access tokens run out now."""
        grant = self._grants.of_login(login.name)
        if grant is not None:
            self._grants.expire_access(grant)

    def consent(self, login: Login, asked: Mapping[str, str]) -> dict[str, str]:
        """The address on which the browser lands. Raises ValueError for another application."""
        if asked.get("client_id", APP_KEY) != APP_KEY:
            raise ValueError("client_id is not the application's")
        return {
            "callback_url": self.callback_url(login.name, asked.get("redirect_uri", REDIRECT_URI), asked.get("state"))
        }

    def configure(self, policy: dict[str, Any]) -> dict[str, Any]:
        """Change members of the policy; all of them afterwards."""
        changed = super().configure(policy)
        self._grants.policy = self.policy
        return changed


def _token_answer(pair: TokenPair, *, rotated: bool) -> Answer:
    body: dict[str, Any] = {"expires_in": pair.expires_in, "token_type": "Bearer", "scope": "api"}
    if pair.refresh_token is not None:
        body["refresh_token"] = pair.refresh_token
    body["access_token"] = pair.access_token
    answer = json_answer(200, body, [(b"cache-control", b"no-store")])
    answer.rotated = rotated
    return answer


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
    """The gateway's refusal. The published `ServiceError` has texts in `errors`; reports of this 401 show objects."""
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
    raise _RefusedError(_service_error(400, "Bad request", "Dates must be yyyy-MM-dd'T'HH:mm:ss.SSSZ"))


STAND_IN = SchwabProfile
