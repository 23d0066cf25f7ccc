"""Answers an app's question for accounts as a stream of JSON, in a memory that does not grow with the answer.

Logins, accounts, balances and the first transactions are read in one transaction, so an answer with up to `_AT_ONCE`
transactions is of one moment. A longer one goes on from where the last part ended. Errors come last in the document:
some are known only when all rows were read.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import date
from uuid import UUID

import msgspec

from worker.crud.database import OpenTransaction
from worker.crud.simplefin import rows
from worker.integrations.registry import REGISTRY
from worker.models.simplefin import AccessRow, ConnectionRow, SharedAccount, SharedTransaction
from worker.services.context import Context
from worker.services.simplefin import account_set
from worker.services.simplefin.accesses import host_of
from worker.services.simplefin.account_set import Connection, Trouble
from worker.services.simplefin.wishes import Wish

_AT_ONCE = 5000
_MOST_PENDING = 10_000
_encode = msgspec.json.Encoder().encode


async def answer(runtime: Context, access: AccessRow, wish: Wish, root: str) -> AsyncIterator[bytes]:
    """The parts of the answer. The first one is read before this returns, so trouble with Postgres is raised here.

    Raises:
        Unavailable: Postgres is out of reach.
    """
    document = _Document(access, wish, root)
    first = await runtime.db(document.begin)
    return _parts(runtime, document, first)


async def _parts(runtime: Context, document: _Document, first: bytes) -> AsyncIterator[bytes]:
    yield first
    while not document.is_complete:
        yield await runtime.db(document.go_on)


class _Document:
    """The answer while it is written. One thread at a time works on it.

    Args:
        access: who asks.
        wish: what is asked for.
        root: the address below which apps ask.

    Attributes:
        shown: the accounts that have not been written completely; the first one may have been begun.
        is_complete: nothing is left to write.
    """

    def __init__(self, access: AccessRow, wish: Wish, root: str) -> None:
        self.access, self.wish, self.root = access, wish, root
        self.shown: list[SharedAccount] = []
        self.is_complete = False
        self._after: tuple[date, UUID] | None = None
        self._members: dict[UUID, bytes] = {}
        self._names: dict[UUID, str] = {}
        self._troubles: list[Trouble] = []
        self._foreign: Counter[UUID] = Counter()
        self._has_accounts = self._has_transactions = False

    def begin(self, session: OpenTransaction) -> bytes:
        """Reads all but the transactions, and the first of these."""
        rows.at_one_moment(session)
        linked = rows.connections(session, user_id=self.access.user_id)
        only = self.access.account_ids
        ids = [one.id for one in linked]
        accounts = rows.accounts(session, connection_ids=ids, ids=only)
        self.shown = [one for one in accounts if self._is_shown(one)]
        with_accounts = {one.connection_id for one in self.shown}
        has_all = only is None and not self.wish.accounts
        connections = [one for one in _named(linked, self.root) if has_all or one.row.id in with_accounts]
        self._note_troubles(connections, accounts)
        self._names = account_set.account_names(accounts)
        self._describe(session, connections)
        opening = b"{"
        if self.wish.version > 1:
            opening += b'"connections":' + _encode([one.entry(self.root) for one in connections]) + b","
        return opening + b'"accounts":[' + self.go_on(session)

    def _is_shown(self, account: SharedAccount) -> bool:
        wanted = not self.wish.accounts or str(account.id) in self.wish.accounts
        return wanted and account.listed and account.balance is not None

    def _note_troubles(self, connections: Sequence[Connection], accounts: Sequence[SharedAccount]) -> None:
        if self.wish.is_reversed:
            text = "end-date is before start-date, so there are no transactions between them"
            self._troubles.append(Trouble("gen.api", text))
        self._troubles += filter(None, (one.trouble() for one in connections))
        known = {str(one.id): one for one in accounts}
        for given in self.wish.accounts or known:
            found = known.get(given)
            if found is None:
                self._troubles.append(Trouble("act.", f"There is no account {given} here", account_id=given))
            elif not found.listed and self.wish.accounts:
                text = f"{found.name} is no longer listed by its institution"
                self._troubles.append(Trouble("act.failed", text, account_id=given))
            elif found.listed and found.balance is None:
                text = f"The balance of {found.name} is not known, so it is left out"
                self._troubles.append(Trouble("act.failed", text, account_id=given))

    def _describe(self, session: OpenTransaction, connections: Sequence[Connection]) -> None:
        """Writes what is known of each account before its transactions."""
        by_id = {one.row.id: one for one in connections}
        holdings = defaultdict(list)
        for one in rows.holdings(session, account_ids=[account.id for account in self.shown]):
            holdings[one.account_id].append(one)
        for account in self.shown:
            members = account_set.account(
                account,
                self._names[account.id],
                by_id[account.connection_id],
                holdings[account.id],
                version=self.wish.version,
                root=self.root,
            )
            self._members[account.id] = _encode(members)

    def go_on(self, session: OpenTransaction) -> bytes:
        """The next part of the document."""
        written, room = bytearray(), _AT_ONCE
        while self.shown and room:
            account = self.shown[0]
            if account.id in self._members:
                self._open(session, account, written)
            found = self._posted(session, account, limit=room)
            self._write(account, found, written, is_pending=False)
            room -= len(found)
            if room:  # otherwise there may be more
                written += b"]}"
                del self.shown[0]
        if not self.shown:
            written += b"]," + self._errors() + b"}"
            self.is_complete = True
        return bytes(written)

    def _open(self, session: OpenTransaction, account: SharedAccount, written: bytearray) -> None:
        """Writes an account up to its posted transactions."""
        written += b"," if self._has_accounts else b""
        written += self._members.pop(account.id)[:-1] + b',"transactions":['
        self._has_accounts, self._has_transactions, self._after = True, False, None
        if self.wish.pending and not self.wish.balances_only:
            found = self._read(session, account, "pending", limit=_MOST_PENDING)
            self._write(account, found, written, is_pending=True)

    def _posted(self, session: OpenTransaction, account: SharedAccount, *, limit: int) -> list[SharedTransaction]:
        if self.wish.balances_only:
            return []
        found = self._read(session, account, "posted", limit=limit, after=self._after)
        if found:
            self._after = (found[-1].posted_date, found[-1].id)
        return found

    def _read(
        self,
        session: OpenTransaction,
        account: SharedAccount,
        status: str,
        *,
        limit: int,
        after: tuple[date, UUID] | None = None,
    ) -> list[SharedTransaction]:
        days = self.wish.days
        return rows.transactions(session, account_id=account.id, status=status, days=days, after=after, limit=limit)

    def _write(
        self, account: SharedAccount, found: Sequence[SharedTransaction], written: bytearray, *, is_pending: bool
    ) -> None:
        for row in found:
            if row.currency != account.currency:  # an app would take its amount for one in the account's currency
                self._foreign[account.id] += 1
                continue
            written += b"," if self._has_transactions else b""
            written += _encode(account_set.transaction(row, is_pending=is_pending))
            self._has_transactions = True

    def _errors(self) -> bytes:
        troubles = list(self._troubles)
        for account_id, count in self._foreign.items():
            text = f"{count} transactions in another currency than that of {self._names[account_id]} are left out"
            troubles.append(Trouble("act.missingdata", text, account_id=str(account_id)))
        if self.wish.version > 1:
            return b'"errlist":' + _encode([one.entry() for one in troubles])
        return b'"errors":' + _encode([one.text for one in troubles])


def _named(linked: Sequence[ConnectionRow], root: str) -> list[Connection]:
    """The logins with the names under which apps show them."""
    counts = Counter(one.alias for one in linked)
    found = []
    for one in linked:
        integration = REGISTRY.get(one.provider_key)
        institution = integration.name if integration else one.provider_key
        name = one.alias if counts[one.alias] == 1 else f"{one.alias} ({institution})"
        domain = integration.domain if integration else ""
        found.append(Connection(one, name, domain or host_of(root)))
    return found
