"""Rules that map a provider's errors to ours. Each integration has a table of them; the first that matches counts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

from worker.errors import BadRequest, CursorRefused, PagingRestart, ProviderError, RateLimited, Scope, Transient

# Matches words and small numbers, as in `ITEM_LOGIN_REQUIRED` and `protocol.http.TooBigBody`, but no token or account
# number.
_SAFE_REASON = re.compile(r"(?=.{1,64}$)(?:[A-Za-z]{1,40}\d{0,4}|\d{1,4})(?:[_.:-](?:[A-Za-z]{1,40}\d{0,4}|\d{1,4}))*")


class Rule(NamedTuple):
    """One row of the table. A condition that is None matches everything.

    Attributes:
        error: the error to raise.
        code: the provider's error code, which must be equal; one that ends with a point stands for all codes of its
            group: `con.` for `con.auth`.
        kind: the provider's group of error codes, which must be equal.
        status: the HTTP status.
        text: a part of the provider's description, in lower case.
        reason: the error's reason, if it should not be the provider's code.
        scope: what the error affects, if not what such errors usually do.
        wait: how long to wait, if the provider names no time.
        feed: the feed of a `PagingRestart` or `CursorRefused`.
    """

    error: type[ProviderError]
    code: str | None = None
    kind: str | None = None
    status: int | None = None
    text: str | None = None
    reason: str | None = None
    scope: Scope | None = None
    feed: str = ""
    wait: timedelta | None = None

    def names(self, code: str | None) -> bool:
        """Whether the rule is for this code."""
        if self.code is None or not self.code.endswith("."):
            return self.code in (None, code)
        return f"{code}.".startswith(self.code)


def by_code(error: type[ProviderError], *codes: str) -> tuple[Rule, ...]:
    """Rules for several codes that all mean the same error."""
    return tuple(Rule(error, code=code) for code in codes)


def by_status(error: type[ProviderError], *statuses: int, reason: str | None = None) -> tuple[Rule, ...]:
    """Rules for several HTTP statuses that all mean the same error."""
    return tuple(Rule(error, status=status, reason=reason) for status in statuses)


def classify(
    rules: Sequence[Rule],
    *,
    status: int,
    code: str | None = None,
    kind: str | None = None,
    text: str = "",
    retry_after: timedelta | None = None,
) -> ProviderError:
    """The error for an unwanted answer. If no rule matches, the HTTP status decides.

    Args:
        rules: the integration's table.
        status: HTTP status.
        code: the provider's own code.
        kind: the provider's group of error codes.
        text: the provider's description; it is compared with the rules and never stored.
        retry_after: how long to wait before the next call, as the provider asks.
    """
    lowered = text.lower()
    for rule in rules:
        if (
            rule.names(code)
            and (rule.kind is None or rule.kind == kind)
            and (rule.status is None or rule.status == status)
            and (rule.text is None or rule.text in lowered)
        ):
            reason = rule.reason or safe_reason(code, status)
            if issubclass(rule.error, PagingRestart | CursorRefused):
                return rule.error(reason, feed=rule.feed)
            return rule.error(reason, scope=rule.scope, retry_after=retry_after or rule.wait)
    return _by_status(status)(safe_reason(code, status), retry_after=retry_after)


def of_accounts(error: ProviderError, account_keys: Iterable[str]) -> list[ProviderError]:
    """The error as a problem of each of these accounts; the error itself if there are none."""
    return [
        type(error)(error.reason, scope=Scope.ACCOUNT, retry_after=error.retry_after, account_key=key)
        for key in account_keys
    ] or [error]


def _by_status(status: int) -> type[ProviderError]:
    if status == 429:
        return RateLimited
    if status == 408 or status >= 500:
        return Transient
    return BadRequest


def safe_reason(code: str | None, status: int) -> str:
    """The provider's code if it is a simple word, else a reason from the status: the code could contain anything."""
    return code if code and _SAFE_REASON.fullmatch(code) else f"http_{status}"
