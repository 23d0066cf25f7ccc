"""Limits that providers state in their answers: how many calls are left, and when there will be more."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from worker.errors import ProviderError, RateLimited, Scope
from worker.integrations.kit.http import read_retry_after
from worker.integrations.kit.transport import Answer

_MOST_SECONDS = 86_400
_UNSTATED = 60
_SECONDS = re.compile(r"\d{1,6}(?:\.\d{1,9})?", re.ASCII)
_AVAILABLE_IN = re.compile(r"available in (\d{1,6}) second", re.ASCII)  # the words of Django REST framework


class Limit(NamedTuple):
    """One limit.

    Attributes:
        prefix: of its headers, in lower case; `remaining` (calls) and `reset` (seconds) follow.
        scope: what it counts: `Scope.APP` for all calls, `Scope.ACCOUNT` for those about one account.
    """

    prefix: str
    scope: Scope

    def wait(self, headers: Mapping[str, str]) -> timedelta | None:
        """How long no more calls are allowed; None while some are left, or if the provider says nothing of it."""
        if headers.get(f"{self.prefix}remaining", "").strip() != "0":
            return None
        given = headers.get(f"{self.prefix}reset", "").strip()
        seconds = float(given) if _SECONDS.fullmatch(given) else _UNSTATED
        return timedelta(seconds=min(seconds, _MOST_SECONDS))


def with_wait(error: ProviderError, limits: Sequence[Limit], answer: Answer, text: str) -> ProviderError:
    """The error, if it is `RateLimited` with the limit that was reached and the longest wait that the answer names.

    Args:
        error: the error that the answer stands for.
        limits: the limits that the provider states, the widest first.
        answer: the answer.
        text: the provider's own words, which may name seconds.
    """
    if not isinstance(error, RateLimited):
        return error
    reached = [(limit.scope, wait) for limit in limits if (wait := limit.wait(answer.headers)) is not None]
    named = _AVAILABLE_IN.search(text)
    waits = [wait for _, wait in reached]
    waits += [timedelta(seconds=int(named[1]))] if named and not reached else []
    waits += [wait] if (wait := read_retry_after(answer.headers)) is not None else []
    error.retry_after = max(waits, default=None)
    if reached:
        error.scope = reached[0][0]
    return error
