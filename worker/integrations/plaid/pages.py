"""Turns Plaid's answers into pages, without any HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import attrgetter

import msgspec

from worker.errors import BadPayload, BadRecord, ProviderError, ReauthRequired
from worker.integrations.kit import moments, reading
from worker.integrations.kit.base import Page, Removal
from worker.integrations.kit.taxonomy import classify
from worker.integrations.plaid import mapping
from worker.integrations.plaid.vocabulary import ACCOUNT_TYPES, RULES, TRANSACTIONS_FEED
from worker.models.records import AccountRecord, BalanceRecord, Reject, SecurityRecord
from worker.models.vocabulary import AccountType


class _Error(msgspec.Struct, gc=False):
    error_type: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_code_reason: str | None = None


_error = reading.Reader(_Error)


class _Item(msgspec.Struct, gc=False):
    item_id: str | None = None
    consent_expiration_time: datetime | None = None
    error: _Error | None = None
    webhook: str | None = None


class _ItemAnswer(msgspec.Struct, gc=False):
    item: _Item


_item = reading.Reader(_ItemAnswer)


class _Accounts(msgspec.Struct, gc=False):
    accounts: list[msgspec.Raw]
    item: msgspec.Raw = msgspec.Raw(b"null")


_accounts = reading.Reader(_Accounts)


class _Owner(msgspec.Struct, gc=False):
    institution_id: str | None = None


_owner = reading.Reader(_Owner)


class _Chosen(msgspec.Struct, gc=False):
    id: str
    name: str | None = None
    mask: str | None = None
    type: str | None = None


class _Metadata(msgspec.Struct, gc=False):
    accounts: list[_Chosen] = []
    institution: _Owner | None = None


_metadata = reading.Reader(_Metadata)
METADATA = "metadata"
"""What Link hands over beside the public token."""


class _Head(msgspec.Struct, gc=False):
    transaction_id: str
    account_id: str


_head = reading.Reader(_Head)


class _Gone(msgspec.Struct, gc=False):
    transaction_id: str
    account_id: str | None = None


_gone = reading.Reader(_Gone)


class Sync(msgspec.Struct, gc=False):
    """An answer of the transactions feed; its rows are not read yet."""

    added: list[msgspec.Raw]
    modified: list[msgspec.Raw]
    removed: list[msgspec.Raw]
    next_cursor: str
    has_more: bool
    transactions_update_status: str | None = None


sync = reading.Reader(Sync)


class _SyncHeads(msgspec.Struct, gc=False):
    added: list[_Head]
    modified: list[_Head]
    removed: list[_Gone]


_sync_heads = reading.Reader(_SyncHeads)


class _Id(msgspec.Struct, gc=False):
    account_id: str


_id = reading.Reader(_Id)


class _Holdings(msgspec.Struct, gc=False):
    accounts: list[msgspec.Raw]
    holdings: list[msgspec.Raw]
    securities: list[msgspec.Raw]


_holdings = reading.Reader(_Holdings)


class Investments(msgspec.Struct, gc=False):
    """An answer with investment transactions; its rows are not read yet."""

    investment_transactions: list[msgspec.Raw]
    securities: list[msgspec.Raw]
    total_investment_transactions: int


investments = reading.Reader(Investments)


class _InvestmentHead(msgspec.Struct, gc=False):
    investment_transaction_id: str
    account_id: str
    security_id: str | None = None


_investment_head = reading.Reader(_InvestmentHead)


_REASONS = frozenset({"OAUTH_INVALID_TOKEN", "OAUTH_CONSENT_EXPIRED", "OAUTH_USER_REVOKED"})
"""Published values of `error_code_reason`; they say more than the code."""

_TRANSACTION_ID, _ACCOUNT_ID = attrgetter("transaction_id"), attrgetter("account_id")


def error_of(status: int, body: bytes, retry_after: timedelta | None) -> ProviderError:
    """The error for an answer other than 200."""
    try:
        given = _error.page(body)
    except BadPayload:
        given = _Error()
    text = given.error_message or ""
    return classify(
        RULES, status=status, code=given.error_code, kind=given.error_type, text=text, retry_after=retry_after
    )


def consent_expires(body: bytes) -> datetime | None:
    """When the consent at the institution ends; None if it does not end.

    Raises:
        BadPayload: the time in the answer cannot be read.
    """
    moment = _item.page(body).item.consent_expiration_time
    try:
        return None if moment is None else moments.in_utc(moment, "consent_expiration_time")
    except BadRecord as error:
        raise BadPayload(error.reason) from None


def webhook_of(body: bytes) -> str | None:
    """The address to which Plaid sends the hooks about an Item; None if it has none."""
    return _item.page(body).item.webhook or None


class LinkToken(msgspec.Struct, gc=False):
    """The answer of `/link/token/create`."""

    link_token: str
    expiration: datetime | None = None


link_token = reading.Reader(LinkToken)


def renewed_item(body: bytes) -> str | None:
    """The id of an Item whose user has renewed the consent.

    Raises:
        ProviderError: the error that the Item still has.
        BadPayload: the answer cannot be read.
    """
    item = _item.page(body).item
    if item.error is not None:
        text = item.error.error_message or ""
        error = classify(RULES, status=400, code=item.error.error_code, kind=item.error.error_type, text=text)
        if isinstance(error, ReauthRequired) and item.error.error_code_reason in _REASONS:
            raise ReauthRequired(item.error.error_code_reason)
        raise error
    return item.item_id


def accounts_page(body: bytes) -> Page:
    """Accounts and balances. If the list is empty or partly unreadable, no account counts as removed."""
    answer = _accounts.page(body)
    institution = _institution(answer.item)
    read, rejects = reading.read_all(answer.accounts, "account", lambda raw: mapping.account(raw, institution))
    return Page(
        accounts=[account for account, _ in read],
        balances=[balance for _, balance in read if isinstance(balance, BalanceRecord)],
        accounts_complete=bool(read) and not rejects,
        rejects=[*rejects, *(balance for _, balance in read if isinstance(balance, Reject))],
    )


def accounts_of_link(metadata: str) -> list[AccountRecord]:
    """The accounts in what Link hands over beside the public token, as JSON; none if they cannot be read.

    Link says neither the currency of an account nor a key that is valid anywhere else.
    """
    try:
        told = _metadata.page(metadata.encode())
    except (BadPayload, UnicodeEncodeError):
        return []
    institution = told.institution.institution_id if told.institution else None
    return [
        AccountRecord(
            account_key=one.id,
            name=one.name,
            type=ACCOUNT_TYPES.get(one.type or "", AccountType.OTHER),
            subtype="",
            mask=one.mask[-4:] if one.mask else None,
            institution=institution,
        )
        for one in told.accounts
        if one.name
    ]


def _institution(item: msgspec.Raw) -> str | None:
    """The id of the Item's institution; None if the answer does not say it in a readable way."""
    try:
        return _owner.record(item).institution_id
    except BadRecord:
        return None


def sync_page(body: bytes, answer: Sync) -> Page:
    """One page of the transactions feed."""
    found, removals = _split_sync(body, answer)
    return Page(
        feed=TRANSACTIONS_FEED,
        cursor=answer.next_cursor,
        more=answer.has_more,
        transactions=found.rows,
        removals=removals,
        rejects=found.rejects,
        map_transaction=mapping.transaction,
    )


def _split_sync(body: bytes, answer: Sync) -> tuple[reading.Split, list[Removal]]:
    raws = answer.added + answer.modified
    if not reading.has_nul(body):
        try:
            heads = _sync_heads.decode(body)
        except (msgspec.DecodeError, RecursionError):
            pass  # some row's ids cannot be read: continue row by row
        else:
            both = heads.added + heads.modified
            rows = reading.raw_records(map(_TRANSACTION_ID, both), map(_ACCOUNT_ID, both), raws)
            return reading.Split(rows, []), [Removal(g.transaction_id, g.account_id) for g in heads.removed]
    found = reading.split(raws, _key_of)
    gone, bad = reading.read_all(answer.removed, "transaction", _gone.record)
    found.rejects += bad
    return found, [Removal(g.transaction_id, g.account_id) for g in gone]


def _key_of(raw: msgspec.Raw) -> tuple[str, str]:
    head = _head.record(raw)
    return head.transaction_id, head.account_id


def holdings_page(body: bytes) -> Page:
    """All positions of all investment accounts of the Item."""
    answer = _holdings.page(body)
    securities, rejects = _securities(answer.securities)
    held, bad = reading.read_all(answer.holdings, "holding", lambda raw: mapping.holding(raw, securities))
    # The account of an unreadable record is unknown: then no position of any account counts as removed.
    accounts, _ = reading.read_each(answer.accounts, "account", _id.record)  # the listing rejects the bad ones
    complete = frozenset() if bad else frozenset(account.account_id for account in accounts)
    return Page(holdings=reading.distinct(held), holdings_complete_for=complete, rejects=[*rejects, *bad])


def investments_page(rows: Sequence[msgspec.Raw], securities: Sequence[msgspec.Raw]) -> Page:
    """Investment transactions, not yet read, with the function that reads them.

    A transaction's row refers to its security by our key, which comes from the answer's list of securities. The key
    changes when Plaid learns the security's CUSIP, while the JSON text of the transaction stays the same.
    """
    known, rejects = _securities(securities)
    beside: dict[tuple[str, str], bytes] = {}

    def key_of(raw: msgspec.Raw) -> tuple[str, str]:
        head = _investment_head.record(raw)
        key, account_key = reading.without_nul(head.investment_transaction_id), reading.without_nul(head.account_id)
        if head.security_id is not None and head.security_id in known:
            beside[account_key, key] = known[head.security_id].key.encode()
        return key, account_key

    found = reading.split(rows, key_of)
    return Page(
        transactions=found.rows,
        rejects=[*rejects, *found.rejects],
        map_transaction=mapping.investment_mapper(known),
        beside=beside,
    )


def identity_of(raw: msgspec.Raw) -> str:
    """A text that identifies an investment transaction, even one that cannot be read."""
    try:
        return _investment_head.record(raw).investment_transaction_id
    except BadRecord:
        return hashlib.blake2b(bytes(raw), digest_size=16).hexdigest()


def _securities(raws: Sequence[msgspec.Raw]) -> tuple[dict[str, SecurityRecord], list[Reject]]:
    read, rejects = reading.read_all(raws, "security", mapping.security)
    return dict(read), rejects
