"""Enable Banking's API as published: banks, consents, sessions, and accounts with pages of transactions.

`broken` is an error's word with the number of an account, as in `ASPSP_ERROR/0`; `no_uid/1` blocks an account, and with
`renumbered` the accounts have other main numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import count
from typing import Any, ClassVar
from urllib.parse import urlencode

from worker.integrations.enable_banking.stand_in import published
from worker.integrations.enable_banking.stand_in.published import APPLICATION_ID, BANKS, REDIRECT_URI, VALIDITY
from worker.sandbox import consent_page
from worker.sandbox.application_key import PRIVATE_KEY, SignedCalls
from worker.sandbox.continued import part as part_of
from worker.sandbox.core import Caller, Login, Profile, Sandbox
from worker.sandbox.ledger import Account, Transaction
from worker.sandbox.loopback import is_registered
from worker.sandbox.one_time import OneTimeTokens
from worker.sandbox.plain_books import PlainBooks
from worker.sandbox.wire import Answer, Request, array, digest, document, json_answer, uuid

_HASH = "WwpbCiJhY2NvdW50IiwKImFjY291bnRfaWQiLAoiaWJhbiIKXQpd"
_PAGE = 40
_HISTORY, _WHOLE_HISTORY_FOR = timedelta(days=90), timedelta(hours=1)
_KINDS = {"depository": "CACC", "credit": "CARD"}
_USUAL = {"aspsp": {"name": "Mock Bank", "country": "FI"}, "psu_type": "personal"}


@dataclass
class Session:
    """One consent of one person at one bank; each of its accounts has an id (`uids`) that is valid only here."""

    id: str
    login: Login
    asked: Mapping[str, Any]
    created: datetime
    valid_until: datetime
    uids: dict[str, str] = field(default_factory=dict)
    status: str = "AUTHORIZED"

    def state(self, now: datetime) -> str:
        """`AUTHORIZED`, or the word for why it does not work any more."""
        return "EXPIRED" if self.status == "AUTHORIZED" and now > self.valid_until else self.status

    def about(self) -> dict[str, Any]:
        """What every answer about it says."""
        access = {"valid_until": self.valid_until.isoformat(), "balances": True, "transactions": True}
        return {"aspsp": self.asked["aspsp"], "psu_type": self.asked["psu_type"], "access": access}


class StandIn(PlainBooks):
    """Sessions, and what can be read with them."""

    key = "enable_banking"
    credentials: ClassVar = {"application_id": APPLICATION_ID, "private_key": PRIVATE_KEY, "redirect_uri": REDIRECT_URI}
    unknown_token = "00000000-0000-4000-8000-0000000dead1"  # noqa: S105 - made up
    error = staticmethod(published.error)

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self._codes = OneTimeTokens(sandbox.clock)
        self._begun: dict[str, dict[str, Any]] = {}
        self._sessions: dict[str, Session] = {}
        names = {"issuer": "enablebanking.com", "audience": "api.enablebanking.com"}
        self._signed = SignedCalls(sandbox.clock, key_id=APPLICATION_ID, **names)
        self._numbers = count(1)

    # What the sandbox asks for

    def consent(self, login: Login, asked: Mapping[str, str]) -> dict[str, str]:
        """The address to which the browser is sent after the login's owner has consented."""
        begun = self._begun.get(asked.get("sessionid", ""), {})
        code = self._codes.hand_out(self._id("code", login.name), login.name, 300, about=begun)
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
        session = self._find([*request.path.split("/"), "", ""][2])
        return Caller("data", session.login.name, session.id) if session else Caller()

    def _find(self, id_: str) -> Session | None:
        """The session with this id, or in which an account has it."""
        return next((one for one in self._sessions.values() if id_ == one.id or id_ in one.uids), None)

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
                return json_answer(200, {"aspsps": BANKS})
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
            bank = next(one for one in BANKS if {name: one[name] for name in ("name", "country")} == asked["aspsp"])
            methods = [one["name"] for one in bank["auth_methods"] if one["psu_type"] == asked["psu_type"]]
            fits = asked.get("auth_method") in (None, *methods)
            known = is_registered(str(asked["redirect_url"]), REDIRECT_URI)
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
        handed = self._codes.take(str(request.json().get("code", "")))
        if handed is None:
            return self.error("WRONG_AUTHORIZATION_CODE")
        session = self._open(self.sandbox.logins[handed.login], handed.about)
        accounts = [self._described(session, account) for account in session.login.ledger.open_accounts()]
        return json_answer(200, {"session_id": session.id, "accounts": accounts, **session.about()})

    def _open(self, login: Login, asked: Mapping[str, Any]) -> Session:
        now, until = self.sandbox.clock.now(), asked.get("access", {}).get("valid_until")
        valid_until = datetime.fromisoformat(until) if until else now + timedelta(seconds=VALIDITY)
        session = Session(self._id("session"), login, {**_USUAL, **asked}, now, valid_until)
        self._sessions[session.id] = session
        return session

    def _ids(self, session: Session, account: Account) -> dict[str, Any]:
        """By what an account is recognised: in every session, and in this one alone, if it is not blocked there."""
        login, other = session.login, f"other.{account.id}"
        hashes = [other, account.id] if login.broken == "renumbered" else [account.id, other]
        ids: dict[str, Any] = {"identification_hash": hashes[0], "identification_hashes": hashes}
        if login.trouble_of(account) != "no_uid":
            ids["uid"] = uuid(self.sandbox.seed, session.id, account.id)
            session.uids[ids["uid"]] = account.id
        return ids

    def _session(self, method: str, id_: str) -> Answer:
        session = self._sessions.get(id_)
        if session is None:
            return self.error("SESSION_DOES_NOT_EXIST")
        if method == "DELETE":
            session.status = "CLOSED"
            return json_answer(200, {"message": "OK"})
        login = session.login
        login.served.requests += 1
        accounts = login.ledger.open_accounts()
        login.served.accounts |= {account.id for account in accounts}
        data = [ids for one in accounts if "uid" in (ids := self._ids(session, one))]
        state = session.state(self.sandbox.clock.now())
        about = {"status": state, "accounts": [ids["uid"] for ids in data], "accounts_data": data}
        more = {"psu_id_hash": "psu", "created": session.created.isoformat()}
        return json_answer(200, {**about, **session.about(), **more})

    def _described(self, session: Session, account: Account) -> dict[str, Any]:
        return {
            "account_id": {"iban": account.number},
            "all_account_ids": [{"identification": account.number, "scheme_name": "IBAN"}],
            "name": "Sandbox Person",
            "product": account.name,
            "usage": "PRIV",
            "cash_account_type": "SVGS" if account.subtype == "savings" else _KINDS[account.type],
            "currency": account.currency,
            **self._ids(session, account),
        }

    def _account(self, request: Request, uid: str, part: str) -> Answer:
        session = self._find(uid)
        account = session.login.ledger.accounts.get(session.uids.get(uid, "")) if session else None
        if session is None or account is None or account.closed:
            return self.error("ACCOUNT_DOES_NOT_EXIST")
        if (state := session.state(self.sandbox.clock.now())) != "AUTHORIZED":
            return self.error(f"{state}_SESSION")
        if word := session.login.trouble_of(account):
            return self.error(word)
        sent = [name for name in request.headers if name.startswith(b"psu-")]
        if sent and not {b"psu-ip-address", b"psu-user-agent"} <= set(sent):
            return self.error("PSU_HEADER_NOT_PROVIDED")
        session.login.served.requests += 1
        match part:
            case "details":
                return json_answer(200, self._described(session, account))
            case "balances":
                amount = {"currency": account.currency, "amount": str(account.current)}
                stated = {"name": "Booked balance", "balance_amount": amount, "balance_type": "CLBD"}
                return json_answer(200, {"balances": [stated]})
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
        written = [self.render(row)[:-1] + b',"transaction_id":"t-%d"}' % next(self._numbers) for row in rows]
        written += account.verbatim if number == 0 else []
        return Answer(200, document(transactions=array(written), **({"continuation_key": key} if key else {})))

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
        return uuid(self.sandbox.seed, *parts, next(self._numbers))


STAND_IN: type[Profile] = StandIn
