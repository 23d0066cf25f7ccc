"""Every refresh token that the provider was shown, against the attempts that we wrote down: promise 3, exactly."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_TIMED_OUT = frozenset({"timeout", "deadline"})
REFUSED = frozenset({"failed", "deferred", "not_sent"})
_GATEWAY = "gateway_error"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of `token_refreshes`; times in seconds since the epoch."""

    login: str
    generation: int
    status: str
    reason: str | None
    error: str | None
    started: float
    finished: float | None

    def outlasted(self, deadline_s: float) -> bool:
        """Whether its call ran into its own deadline: the one unknown outcome that a busy machine brings by itself."""
        return self.reason in _TIMED_OUT and self.finished is not None and self.finished - self.started >= deadline_s


@dataclass(slots=True)
class Account:
    """What the comparison came to.

    Attributes:
        wrong: one line for each presentation that promise 3 does not allow.
        outlasted: calls that were repeated only because they ran into their own deadline.
    """

    wrong: list[str] = field(default_factory=list)
    outlasted: list[Attempt] = field(default_factory=list)


def reckon(
    requests: Iterable[Mapping[str, Any]], attempts: Sequence[Attempt], *, retries: bool, deadline_s: float
) -> Account:
    """Assigns each refresh in the provider's log to the attempt that was under way when it arrived.

    One attempt presents its token at most once. A token comes again only after a refusal, which used nothing up, or
    once after an outcome that nobody knows; the errors of a gateway do not count against that.

    Args:
        requests: the sandbox's log of refreshes, oldest first.
        attempts: all rows, oldest first.
        retries: whether the fault may leave an outcome unknown at all; if not, only a call that ran into its own
            deadline may be repeated.
        deadline_s: of a call.
    """
    account = Account()
    for (login, _), shown in _presented(requests, attempts, account).items():
        for number, attempt in enumerate(shown[:-1]):
            if attempt.status in REFUSED:
                continue
            if attempt.status != "unknown":
                account.wrong.append(f"{login}: presented again after {attempt}")
            elif attempt.error == _GATEWAY and retries:
                continue
            elif any(earlier.status == "unknown" and earlier.error != _GATEWAY for earlier in shown[:number]):
                account.wrong.append(f"{login}: presented again after two unknown outcomes: {shown}")
            elif not retries and attempt.outlasted(deadline_s):
                account.outlasted.append(attempt)
            elif not retries:
                account.wrong.append(f"{login}: this fault should have left no outcome unknown: {attempt}")
    return account


def _presented(
    requests: Iterable[Mapping[str, Any]], attempts: Sequence[Attempt], account: Account
) -> dict[tuple[str, str], list[Attempt]]:
    """By login and token, the attempts that presented it."""
    begun: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        begun[attempt.login].append(attempt)
    presented: defaultdict[tuple[str, str], list[Attempt]] = defaultdict(list)
    for request in requests:
        login, token, received = request["login"], request["token"], request["received"]
        if login is None or token is None:  # broken off before the provider knew who asked
            continue
        under_way = [attempt for attempt in begun[login] if attempt.started <= received]
        shown = presented[login, token]
        if not under_way:
            account.wrong.append(f"{login}: presented without an attempt")
        elif any(under_way[-1] is other for other in shown):
            account.wrong.append(f"{login}: presented twice in one attempt: {under_way[-1]}")
        else:
            shown.append(under_way[-1])
            if under_way[-1].status == "not_sent":
                account.wrong.append(f"{login}: presented, and said not to be: {under_way[-1]}")
            if under_way[-1].status in REFUSED and request.get("status") == 200:
                account.wrong.append(f"{login}: answered with tokens, and taken for a refusal: {under_way[-1]}")
    return presented
