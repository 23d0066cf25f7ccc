"""The smallest stand-in: what a provider needs when the sandbox brings the rest."""

from __future__ import annotations

from typing import Any, ClassVar

from worker.sandbox.ledger import Transaction
from worker.sandbox.oauth import OAuthProfile
from worker.sandbox.plain_books import PlainBooks
from worker.sandbox.wire import Answer, Request, array, json_answer


class Toy(OAuthProfile, PlainBooks):
    """Accounts, and all transactions at once."""

    key = "toy"
    client = ("toy-app", "toy-secret")
    credentials: ClassVar = {"client_id": "toy-app", "client_secret": "toy-secret"}
    access_format = "toy-{}"

    def data(self, request: Request) -> Answer:
        login = self.authorised(request)
        if request.path == "/accounts":
            return json_answer(200, [{"id": a.id, "balance": a.current} for a in login.ledger.open_accounts()])
        if request.path == "/transactions":
            rows = list(login.ledger.transactions.values())
            login.served.window(rows, ())
            return Answer(200, array(self.render(row) for row in rows))
        return self.error("not_found")

    def written(self, row: Transaction) -> dict[str, Any]:
        return {"id": row.id, "account": row.account.id, "amount": row.amount, "text": row.description}


STAND_IN = Toy
