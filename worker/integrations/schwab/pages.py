"""Turns Schwab's answers into pages and gives each account its key, without any HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from itertools import repeat
from typing import NamedTuple

import msgspec

from worker.errors import BadPayload, BadRecord, ProviderError, Transient
from worker.integrations.kit import reading
from worker.integrations.kit.base import Page
from worker.integrations.kit.masking import last_four
from worker.integrations.kit.taxonomy import Rule, classify
from worker.integrations.schwab import mapping
from worker.models.records import AccountRecord, BalanceRecord, HoldingRecord, Reject

ACCOUNTS_FEED = "accounts"


class _Known(msgspec.Struct, frozen=True, array_like=True):
    """One account in the cursor of the accounts feed: its latest hash, and the last four digits of its number."""

    hash_value: str
    mask: str


class _Head(msgspec.Struct, gc=False, rename="camel"):
    activity_id: int | str
    account_number: str | None = None


class _AnyHead(msgspec.Struct, gc=False, rename="camel"):
    activity_id: int | str | None = None
    account_number: str | None = None
    status: object = None


_heads = reading.Reader(list[_Head])
_any_head = reading.Reader(_AnyHead)
rows = reading.Reader(list[msgspec.Raw])
_known = reading.Reader(dict[str, _Known])


def error_of(rules: Sequence[Rule], status: int, body: bytes, retry_after: timedelta | None) -> ProviderError:
    """The error for an answer other than 200."""
    words = error_words(body)
    if words is None and status == 403:  # a firewall's page; the next call may succeed
        return Transient("http_403_unreadable", retry_after=retry_after)
    title, text = words or (None, "")
    return classify(rules, status=status, code=title, text=text, retry_after=retry_after)


def error_words(body: bytes) -> tuple[str | None, str] | None:
    """The code and the text of an error. Schwab's services, gateway and edge each use a different format."""
    try:
        given = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(given, dict):
        return None
    errors = given.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else None
    if isinstance(first, dict):
        return _word(first.get("title")), str(first.get("detail") or "")
    fault = given.get("fault")
    if isinstance(fault, dict):
        detail = fault.get("detail")
        return _word(detail.get("errorcode") if isinstance(detail, dict) else None), str(fault.get("faultstring") or "")
    return None, str(given.get("message") or "")


def _word(value: object) -> str | None:
    return value.replace(" ", "_") if isinstance(value, str) else None


def transactions_page(body: bytes, raws: Sequence[msgspec.Raw], account_key: str, number: str) -> Page:
    """One window's rows, not yet read. Rows of another account go to quarantine.

    Args:
        body: the whole answer.
        raws: its rows.
        account_key: the account to which the rows should belong.
        number: the account's full number, which the rows contain.
    """
    found = _split(body, raws, account_key, number)
    return Page(
        transactions=found.rows,
        rejects=found.rejects,
        map_transaction=mapping.transaction,
    )


def _split(body: bytes, raws: Sequence[msgspec.Raw], account_key: str, number: str) -> reading.Split:
    try:
        heads = [] if reading.has_nul(body) else _heads.page(body)
    except BadPayload:
        heads = []
    if len(heads) == len(raws) and {head.account_number for head in heads} <= {number, None}:
        keys = [str(head.activity_id) for head in heads]
        return reading.Split(reading.raw_records(keys, repeat(account_key, len(keys)), raws), [])

    fingerprints: Counter[str] = Counter()

    def key_of(raw: msgspec.Raw) -> tuple[str, str]:
        head = _any_head.record(raw)
        if head.account_number not in (number, None):
            raise BadRecord("account_unknown")
        if head.activity_id is not None:
            return str(head.activity_id), account_key
        if head.status != "PENDING":  # a settled row without a lasting id could never be withdrawn
            raise BadRecord("activityId_missing")
        return reading.fingerprint(raw, fingerprints, without="accountNumber"), account_key

    return reading.split(raws, key_of)


class Listing(NamedTuple):
    """Accounts, balances and positions.

    Attributes:
        page: the page with all of them.
        numbers: account number of each account key; used to check rows and never stored.
    """

    page: Page
    numbers: dict[str, str]


def read_listing(numbers: bytes, accounts: bytes, cursor: str | None) -> Listing:
    """Joins Schwab's two lists of accounts by account number."""
    pairs, unpaired = reading.read_all(mapping.account_list.page(numbers), "account", mapping.account_number.record)
    hashes = {pair.account_number: pair.hash_value for pair in pairs}
    keys, known = assign_keys(hashes, cursor)
    listed, rejects = reading.read_each(mapping.account_list.page(accounts), "account", _listed_account)
    rejects += unpaired
    page = Page(feed=ACCOUNTS_FEED, cursor=known)
    found: list[AccountRecord] = []
    balances: list[BalanceRecord] = []
    holdings: list[HoldingRecord] = []
    complete: set[str] = set()
    for account in listed:
        number = account.securities_account.account_number
        key = keys.get(number)
        if key is None:
            rejects.append(Reject(kind="account", reason="account_without_hash", payload={"mask": last_four(number)}))
            continue
        found.append(mapping.account(account, key, hashes[number]))
        try:
            balances.append(mapping.balance(account, key))
        except Exception as error:
            text = mapping.balances_text(account)
            rejects.append(reading.reject("balance", BadRecord.of(error), text, account_key=key))
        positions, bad = mapping.holdings(account, key)
        holdings += reading.distinct(positions)
        rejects += bad
        if not bad:
            complete.add(key)
    page.accounts, page.balances, page.holdings, page.rejects = found, balances, holdings, rejects
    page.holdings_complete_for = frozenset(complete)
    # An empty list does not count as proof that every account was removed.
    page.accounts_complete = bool(found) and len(found) == len(hashes) and not unpaired
    return Listing(page, {key: number for number, key in keys.items()})


def _listed_account(raw: bytes) -> mapping.ListedAccount:
    text, _ = reading.repaired(raw)
    return mapping.listed_account.record(text)


def assign_keys(hashes: dict[str, str], cursor: str | None) -> tuple[dict[str, str], str]:
    """Gives each account number its key, and returns the keys and the cursor that stores them.

    Args:
        hashes: the present hash of each account number.
        cursor: the cursor that an earlier call returned.
    """
    try:
        known = dict(_known.page(cursor.encode())) if cursor else {}
    except BadPayload:
        known = {}
    key_of_hash = {entry.hash_value: key for key, entry in known.items()}
    lost = {key: entry.mask for key, entry in known.items() if entry.hash_value not in hashes.values()}
    keys: dict[str, str] = {}
    for number, hash_value in hashes.items():
        mask = last_four(number)
        key = key_of_hash.get(hash_value)
        if key is None:
            candidates = [old for old, old_mask in lost.items() if old_mask == mask]
            newcomers = [n for n, h in hashes.items() if last_four(n) == mask and h not in key_of_hash]
            key = candidates[0] if len(candidates) == 1 and len(newcomers) == 1 else hash_value
        keys[number] = key
        known[key] = _Known(hash_value, mask)
    return keys, msgspec.json.encode(known, order="sorted").decode()
