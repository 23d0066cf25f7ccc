"""What a provider's errors mean, as data: each integration has a table of rules, read from the top."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from worker.errors import BadRequest, CursorRefused, PagingRestart, ProviderError, RateLimited, Scope, Transient

# Words and small numbers, as in `ITEM_LOGIN_REQUIRED` and `protocol.http.TooBigBody`; no token or account number.
_SAFE_REASON = re.compile(r"(?=.{1,64}$)(?:[A-Za-z]{1,40}\d{0,4}|\d{1,4})(?:[_.:-](?:[A-Za-z]{1,40}\d{0,4}|\d{1,4}))*")


class Rule(NamedTuple):
    """One line of a table. What is None matches everything.

    Attributes:
        error: what it means.
        code: the provider's code, exactly.
        kind: the provider's family of codes, exactly.
        status: the HTTP status.
        text: found in the provider's description, in lower case.
        reason: kept instead of the provider's code.
        feed: for `PagingRestart` and `CursorRefused`.
    """

    error: type[ProviderError]
    code: str | None = None
    kind: str | None = None
    status: int | None = None
    text: str | None = None
    reason: str | None = None
    scope: Scope | None = None
    feed: str = ""


def by_code(error: type[ProviderError], *codes: str) -> tuple[Rule, ...]:
    """Lines for codes that all mean the same."""
    return tuple(Rule(error, code=code) for code in codes)


def classify(
    rules: Sequence[Rule],
    *,
    status: int,
    code: str | None = None,
    kind: str | None = None,
    text: str = "",
    retry_after: timedelta | None = None,
) -> ProviderError:
    """The error that an unwanted answer means; without a matching rule its status decides.

    Args:
        rules: the integration's table.
        status: HTTP status.
        code: the provider's own code.
        kind: the family that the provider puts the code in.
        text: the provider's description; matched, never kept.
        retry_after: how long the provider does not want to be asked again.
    """
    lowered = text.lower()
    for rule in rules:
        if (
            (rule.code is None or rule.code == code)
            and (rule.kind is None or rule.kind == kind)
            and (rule.status is None or rule.status == status)
            and (rule.text is None or rule.text in lowered)
        ):
            reason = rule.reason or safe_reason(code, status)
            if issubclass(rule.error, PagingRestart | CursorRefused):
                return rule.error(reason, feed=rule.feed)
            return rule.error(reason, scope=rule.scope, retry_after=retry_after)
    return _by_status(status)(safe_reason(code, status), retry_after=retry_after)


def _by_status(status: int) -> type[ProviderError]:
    if status == 429:
        return RateLimited
    if status == 408 or status >= 500:
        return Transient
    return BadRequest


def safe_reason(code: str | None, status: int) -> str:
    """The provider's code if it is a plain word; it is stored and shown, and could hold anything."""
    return code if code and _SAFE_REASON.fullmatch(code) else f"http_{status}"
