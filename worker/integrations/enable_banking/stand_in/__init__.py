"""Enable Banking's API as published: banks, consents, sessions, and accounts with pages of transactions.

`broken` is an error's word with the number of an account, as in `ASPSP_ERROR/0`; `no_uid/1` blocks an account, and with
`renumbered` the accounts have other main numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlencode
from uuid import UUID

from worker.integrations.enable_banking.stand_in import published
from worker.integrations.enable_banking.stand_in.published import APPLICATION_ID, BANKS, REDIRECT_URI, VALIDITY
from worker.integrations.enable_banking.stand_in.sessions import Session, balance, hashes, index
from worker.integrations.enable_banking.stand_in.sessions import about as about_of
from worker.sandbox import consent_page
from worker.sandbox.application_key import PRIVATE_KEY, SignedCalls
from worker.sandbox.continued import part as part_of
from worker.sandbox.core import Caller, Login, Profile, Sandbox
from worker.sandbox.ledger import Account, Transaction
from worker.sandbox.loopback import is_registered
from worker.sandbox.one_time import OneTimeTokens
from worker.sandbox.plain_books import PlainBooks
from worker.sandbox.wire import Answer, Request, array, digest, document, json_answer

_HASH = "WwpbCiJhY2NvdW50IiwKImFjY291bnRfaWQiLAoiaWJhbiIKXQpd"
_PAGE = 40
_HISTORY, _WHOLE_HISTORY_FOR = timedelta(days=90), timedelta(hours=1)
_KINDS = {"depository": "CACC", "credit": "CARD", "savings": "SVGS"}


class StandIn(PlainBooks):
    """Sessions, and what can be read with them."""

    key = "enable_banking"
    credentials: ClassVar = {"application_id": APPLICATION_ID, "private_key": PRIVATE_KEY, "redirect_uri": REDIRECT_URI}
    unknown_token = "00000000-0000-4000-8000-0000000dead1"  # noqa: S105 - made up

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._codes = OneTimeTokens(sandbox.clock)
        self._begun: dict[str, dict[str, Any]] = {}
        self._asked: dict[str, dict[str, Any]] = {}
        self._sessions: dict[str, Session] = {}
        names = {"issuer": "enablebanking.com", "audience": "api.enablebanking.com"}
        self._signed = SignedCalls(sandbox.clock, key_id=APPLICATION_ID, **names)
        self._number = 0

    # What the sandbox asks for

    def consent(self, login: Login, asked: Mapping[str, str]) -> dict[str, str]:
        """The address to which the browser is sent after the login's owner has consented."""
        begun = self._begun.get(asked.get("sessionid", ""), {})
        code = self._codes.hand_out(self._id("code", login.name), login.name, 300)
        self._asked[code] = begun
        back = {"code": code, **({"state": state} if (state := begun.get("state", asked.get("state"))) else {})}
        return {"callback_url": f"{begun.get('redirect_url', REDIRECT_URI)}?{urlencode(back)}"}

    def mint(self, login: Login) -> dict[str, Any]:
        """A session, without a browser."""
        return {"access_token": self._open(login, {}).id}

    def revoke(self, login: Login) -> None:
        """Ends all sessions of the login."""
        for session in self._sessions.values():
            if session.login is login:
                session.status = "REVOKED"

    def caller(self, request: Request) -> Caller:
        """The caller of a request; see `core.Profile`."""
        if request.path == "/sessions":
            return Caller("exchange", self._codes.login(str(request.json().get("code", ""))))
        id_ = [*request.path.split("/"), "", ""][2]
        session = next((one for one in self._sessions.values() if id_ == one.id or id_ in one.uids), None)
        return Caller("data", session.login.name, session.id) if session else Caller()

    def error(self, name: str) -> Answer:
        """A published error by its word, or by the sandbox's name for it."""
        return published.error(name)

    def rate_limited(self, request: Request, retry_after: str | None) -> Answer:
        """The bank's limit for one account, or the API's own for everything else."""
        if request.path.startswith("/accounts/"):
            return self.error("ASPSP_RATE_LIMIT_EXCEEDED")
        return super().rate_limited(request, retry_after)

    def _accounts(self, login: Login) -> list[Account]:
        accounts = super()._accounts(login)
        for number, account in enumerate(accounts):
            account.currency, account.id = "EUR", f"{_HASH}.{account.id}="
            account.number = f"FI{int.from_bytes(digest(self.sandbox.seed, login.name, number, size=6)) % 10**16:016d}"
        return accounts

    # Answers

    def answer(self, request: Request, caller: Caller) -> Answer:
        """The answer to one request."""
        if request.path == "/ais/start":
            return self._start(request)
        if not self._signed.admits(request):
            return self.error("UNAUTHORIZED_ACCESS")
        match request.method, request.path.strip("/").split("/"):
            case "GET", ["aspsps"]:
                return json_answer(200, {"aspsps": [published.bank(*bank) for bank in BANKS]})
            case "POST", ["auth"]:
                return self._auth(request)
            case "POST", ["sessions"]:
                return self._authorise(request)
            case ("GET" | "DELETE") as method, ["sessions", id_]:
                return self._session(method, id_)
            case "GET", ["accounts", uid, part]:
                return self._account(request, uid, part)
        return self.error("not_found")

    def _auth(self, request: Request) -> Answer:
        asked = request.json()
        try:
            until = datetime.fromisoformat(asked["access"]["valid_until"])
            bank = next(one for one in BANKS if {"name": one[0], "country": one[1]} == asked["aspsp"])
            known = is_registered(asked["redirect_url"], REDIRECT_URI)
            fits = asked.get("auth_method") in (None, *(name for kind, name in bank[2] if kind == asked["psu_type"]))
        except (KeyError, TypeError, ValueError):
            return self.error("WRONG_REQUEST_PARAMETERS")
        except StopIteration:
            return self.error("WRONG_ASPSP_PROVIDED")
        now = self.sandbox.clock.now()
        if not known:
            return self.error("REDIRECT_URI_NOT_ALLOWED")
        if not fits or until.tzinfo is None or not now < until <= now + timedelta(seconds=VALIDITY + 60):
            return self.error("WRONG_REQUEST_PARAMETERS")
        id_, host = self._id("authorization"), request.header("host")
        self._begun[id_] = asked
        start = f"{'http' if host.startswith('127.') else 'https'}://{host}/{self.key}/ais/start?sessionid={id_}"
        return json_answer(200, {"url": start, "authorization_id": id_, "psu_id_hash": self._id("psu")})

    def _start(self, request: Request) -> Answer:
        begun = self._begun.get(request.parameters().get("sessionid", ""))
        if begun is None:
            return self.error("not_found")

        def allowed(given: Mapping[str, str]) -> str:
            linked = {one.login.name for one in self._sessions.values()}
            name = given.get("login") or self.next_login(linked.__contains__)
            return self.consent(self.sandbox.logins[name or ""], given)["callback_url"]

        back = f"{begun['redirect_url']}?{urlencode({'error': 'access_denied', 'state': begun['state']})}"
        return consent_page.decided(self.key, request, sorted(self.sandbox.logins), allowed, lambda _: back)

    def _authorise(self, request: Request) -> Answer:
        code = str(request.json().get("code", ""))
        handed = self._codes.take(code)
        if handed is None:
            return self.error("WRONG_AUTHORIZATION_CODE")
        session = self._open(self.sandbox.logins[handed.login], self._asked.pop(code, {}))
        accounts = [self._described(session, account) for account in session.login.ledger.open_accounts()]
        about = {"session_id": session.id, "accounts": accounts, **about_of(session)}
        return json_answer(200, about)

    def _open(self, login: Login, asked: Mapping[str, Any]) -> Session:
        now, bank = self.sandbox.clock.now(), asked.get("aspsp", {"name": "Mock Bank", "country": "FI"})
        until = asked.get("access", {}).get("valid_until")
        valid_until = datetime.fromisoformat(until) if until else now + timedelta(seconds=VALIDITY)
        kind = asked.get("psu_type", "personal")
        session = Session(self._id("session"), login, bank["name"], bank["country"], kind, now, valid_until)
        self._sessions[session.id] = session
        return session

    def _uid(self, session: Session, account: Account) -> str | None:
        if session.login.broken == f"no_uid/{index(session.login, account)}":
            return None
        uid = str(UUID(bytes=digest(self.sandbox.seed, "uid", session.id, account.id)))
        session.uids[uid] = account.id
        return uid

    def _session(self, method: str, id_: str) -> Answer:
        session = self._sessions.get(id_)
        if session is None:
            return self.error("SESSION_DOES_NOT_EXIST")
        if method == "DELETE":
            session.status = "CLOSED"
            return json_answer(200, {"message": "OK"})
        self._note_time(session)
        login = session.login
        login.served.requests += 1
        accounts = login.ledger.open_accounts()
        login.served.accounts |= {account.id for account in accounts}
        data = [{"uid": uid, **hashes(login, one)} for one in accounts if (uid := self._uid(session, one))]
        uids = [one["uid"] for one in data]
        about = {"status": session.status, "accounts": uids, "accounts_data": data, **about_of(session)}
        return json_answer(200, {**about, "psu_id_hash": "psu", "created": session.created.isoformat()})

    def _note_time(self, session: Session) -> None:
        if session.status == "AUTHORIZED" and self.sandbox.clock.now() > session.valid_until:
            session.status = "EXPIRED"

    def _described(self, session: Session, account: Account) -> dict[str, Any]:
        uid = self._uid(session, account)
        kind = "SVGS" if account.subtype == "savings" else _KINDS[account.type]
        return {
            "account_id": {"iban": account.number},
            "all_account_ids": [{"identification": account.number, "scheme_name": "IBAN"}],
            "name": "Sandbox Person",
            "product": account.name,
            "usage": "PRIV",
            "cash_account_type": kind,
            "currency": account.currency,
            **hashes(session.login, account),
            **({"uid": uid} if uid else {}),
        }

    def _account(self, request: Request, uid: str, part: str) -> Answer:
        session = next((one for one in self._sessions.values() if uid in one.uids), None)
        account = None if session is None else session.login.ledger.accounts.get(session.uids[uid])
        if session is None or account is None or account.closed:
            return self.error("ACCOUNT_DOES_NOT_EXIST")
        self._note_time(session)
        if session.status != "AUTHORIZED":
            return self.error(f"{session.status}_SESSION")
        word, number = session.login.trouble
        if number == str(index(session.login, account)):
            return self.error(word)
        sent = [name for name in request.headers if name.startswith(b"psu-")]
        if sent and not {b"psu-ip-address", b"psu-user-agent"} <= set(sent):
            return self.error("PSU_HEADER_NOT_PROVIDED")
        session.login.served.requests += 1
        match part:
            case "details":
                return json_answer(200, self._described(session, account))
            case "balances":
                return json_answer(200, {"balances": [balance("CLBD", "Booked balance", account)]})
            case "transactions":
                return self._transactions(request, session, account)
        return self.error("not_found")

    def _transactions(self, request: Request, session: Session, account: Account) -> Answer:
        given, now = request.parameters(), self.sandbox.clock.now()
        oldest = date.min if now - session.created < _WHOLE_HISTORY_FOR else (now - _HISTORY).date()
        longest = given.get("strategy") == "longest"
        try:
            first = date.fromisoformat(given["date_from"]) if "date_from" in given else (now - _HISTORY).date()
        except ValueError:
            return self.error("WRONG_REQUEST_PARAMETERS")
        if first < oldest and not longest:
            return self.error("WRONG_TRANSACTIONS_PERIOD")
        login, first = session.login, max(first, oldest)
        listed = [row for row in reversed(account.by_time) if first <= row.date and login.visible(row)]
        found = part_of(listed, _PAGE, f"{session.id}/{account.id}/{first}", given.get("continuation_key"))
        if found is None:
            return self.error("WRONG_CONTINUATION_KEY")
        number, rows, key = found
        gone = (row for row in account.removed if first <= row.date)
        login.served.window(rows, gone if number == 0 else ())
        written = [self._with_id(row) for row in rows] + (account.verbatim if number == 0 else [])
        return Answer(200, document(transactions=array(written), **({"continuation_key": key} if key else {})))

    def _with_id(self, row: Transaction) -> bytes:
        self._number += 1
        return self.render(row)[:-1] + b',"transaction_id":"t-%d"}' % self._number

    def written(self, row: Transaction) -> dict[str, Any]:
        """One transaction; `transaction_id`, which is another one each time, is added to it."""
        debit, booked = row.amount < 0, row.status == "posted"
        return {
            "entry_reference": row.id,
            "transaction_amount": {"currency": row.account.currency, "amount": str(abs(row.amount))},
            "credit_debit_indicator": "DBIT" if debit else "CRDT",
            "status": "BOOK" if booked else "PDNG",
            **({"booking_date": row.date.isoformat(), "value_date": row.date.isoformat()} if booked else {}),
            "transaction_date": row.date.isoformat(),
            **({"creditor" if debit else "debtor": {"name": row.merchant}} if row.merchant else {}),
            **({"merchant_category_code": "5411"} if row.merchant and debit else {}),
            "remittance_information": [row.description],
        }

    def _id(self, *parts: object) -> str:
        self._number += 1
        return str(UUID(bytes=digest(self.sandbox.seed, *parts, self._number), version=4))


STAND_IN: type[Profile] = StandIn
