"""Adds an account's balance and positions to a page. What cannot be read becomes a reject and costs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from worker.integrations.kit import reading
from worker.integrations.kit.base import Page
from worker.models.records import BalanceRecord, HoldingRecord


def add_balance(page: Page, account_key: str, raw: bytes, read: Callable[[bytes], BalanceRecord]) -> None:
    """Adds what is stated of an account's value; `read` gets its text unchanged and raises `BadRecord`."""
    found, rejects = reading.read_each([msgspec.Raw(raw)], "balance", read, account_key)
    page.balances, page.rejects = [*page.balances, *found], [*page.rejects, *rejects]


def preferred(
    stated: Sequence[BalanceRecord], currency: str, *, current: Sequence[str], available: Sequence[str]
) -> list[BalanceRecord]:
    """The balance of an account of which several kinds are stated, with what is available; none if none is stated.

    Args:
        stated: a record of each; its source is the kind.
        currency: the account's; records in others count only if there is none in it.
        current: the kinds that may be the balance, the most certain first. If none of them is stated, the first counts.
        available: the kinds of which the first that is stated is what is available.
    """
    own = [one for one in stated if one.currency == currency] or stated
    by_kind = {one.source: one for one in reversed(own)}
    chosen = next((by_kind[kind] for kind in current if kind in by_kind), own[0] if own else None)
    free = next((by_kind[kind].current for kind in available if kind in by_kind), None)
    return [] if chosen is None else [msgspec.structs.replace(chosen, available=free)]


def add_holdings(
    page: Page,
    account_key: str,
    raws: Sequence[msgspec.Raw],
    read: Callable[[bytes], HoldingRecord],
    *,
    more: Sequence[HoldingRecord] = (),
    complete: bool = True,
) -> None:
    """Adds an account's positions. They count as all that it has if they are, and if each of them could be read.

    Args:
        page: the page.
        account_key: the account.
        raws: the JSON text of each position.
        read: reads one; raises `BadRecord`.
        more: positions that are stated elsewhere, such as money of several currencies.
        complete: whether these are all.
    """
    found, rejects = reading.read_all(raws, "holding", read, account_key)
    page.holdings = [*page.holdings, *reading.distinct([*found, *more])]
    page.rejects = [*page.rejects, *rejects]
    if complete and not rejects:
        page.holdings_complete_for |= {account_key}
