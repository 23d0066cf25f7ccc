"""Reasons why integrations and logins are not refreshed or synced although servers and processes work."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from worker.crud.database import OpenTransaction
from worker.crud.fleet import breakers, overview, quota_waits
from worker.errors import Refused
from worker.models import IntegrationState
from worker.models.fleet import ProviderRow
from worker.models.vocabulary import ProviderStatus
from worker.services import mending
from worker.services.findings import Finding
from worker.settings import Settings
from worker.text.spans import when

NO_QUOTA = ("integration_paused", "breaker_open", "quota_uncounted", "refresh_waits")
"""Reasons that are stored like a used-up quota, but are something else."""

_FAILING = 3
"""A single call that fails is repeated and is no news; from this many in a row on, people are told."""
_RECENT = timedelta(minutes=15)
_LISTED = 100


class BreakerLimits(NamedTuple):
    """How many failures in a row, and of how many logins, open a breaker."""

    failures: int
    logins: int

    @classmethod
    def of(cls, settings: Settings) -> BreakerLimits:
        """As the settings say."""
        return cls(settings.breaker_failures, settings.breaker_providers)


def in_the_fleet(
    session: OpenTransaction, *, enabled: Sequence[str], now: datetime, opens_after: BreakerLimits
) -> list[Finding]:
    """Paused integrations, providers that do not answer, used-up quotas, logins that are paused or need their user."""
    states = breakers.read_states(session)
    found = [
        finding for key in enabled for finding in of_integration(key, states.get(key), now, opens_after=opens_after)
    ]
    waits = quota_waits.quota_waits(session, since=now - _RECENT, now=now, others=list(NO_QUOTA))
    found += [over_quota(wait.provider_key, wait.logins, wait.alias, wait.until, now) for wait in waits]
    for status in (ProviderStatus.PAUSED, ProviderStatus.NEEDS_REAUTH):
        rows = overview.list_providers(session, limit=_LISTED, status=status)
        if rows:
            found += _logins(rows)
    return found


def of_integration(
    key: str, state: IntegrationState | None, now: datetime, *, opens_after: BreakerLimits
) -> list[Finding]:
    """Reasons that hold up all logins of one integration.

    Args:
        key: the integration's key.
        state: its stored state, if there is one.
        now: the database's time.
        opens_after: which failures open the breaker.
    """
    if state is None:
        return []
    found = []
    resume = f"dashtam integrations resume {key}"
    if state.alarm is not None:
        what = f"it refuses our own credentials ({state.alarm}); its logins wait, and nothing of them is lost"
        found.append(Finding(key, True, what, f"correct {key}'s credentials, then: {resume}"))
    elif state.paused_at is not None:
        reason = state.paused_reason or "no reason was given"
        what = f"paused by {state.paused_by or 'somebody'} ({reason}); its logins are neither refreshed nor synced"
        found.append(Finding(key, True, what, f"when it may go on: {resume}"))
    if state.breaker == "open":
        probe = f"; the next probe is {when(state.probe_at, now)}" if state.probe_at else ""
        what = f"the provider does not answer, so the breaker is open and its calls wait{probe}"
        found.append(
            Finding(key, True, what, f"it closes by itself when the provider answers; to try at once: {resume}")
        )
    elif state.breaker == "half_open":
        what = "the breaker is half open after an outage; one success lets all calls through"
        found.append(Finding(key, True, what, f"nothing has to be done; to let all through at once: {resume}"))
    elif state.failures >= _FAILING and len(state.failing) > 1:
        what = (
            f"the provider does not answer: the last {state.failures} calls have failed; after {opens_after.failures} "
            f"in a row, of {opens_after.logins} logins, the breaker opens and calls wait"
        )
        found.append(
            Finding(key, True, what, f"calls are repeated by themselves; {_try_now(state.failing[0], 'one ')}")
        )
    return found


def unanswered(key: str, login: UUID, calls: int, since: datetime, error: str, now: datetime) -> Finding:
    """The finding for a login whose last calls the provider has not answered.

    Args:
        key: the key of its integration.
        login: its id.
        calls: how many of its refreshes and syncs in a row have failed.
        since: when the first of them began.
        error: what the last one failed with.
        now: the database's time.
    """
    many = f"the last {calls} refreshes and syncs have failed, the first" if calls > 1 else "the last call failed"
    what = f"the provider does not answer for this login: {many} {when(since, now)} ({error})"
    return Finding(key, True, what, f"it is repeated by itself; {_try_now(str(login))}")


def _try_now(login: str, what: str = "") -> str:
    return f"to try {what}at once: dashtam sync {login} --force --wait"


def refuse_paused(session: OpenTransaction, provider_key: str) -> None:
    """Raises `Refused` if the integration is paused: then no call would be made."""
    state = breakers.read_states(session).get(provider_key)
    if state is not None and state.paused_at is not None:
        raise Refused(
            f"{provider_key} is paused ({state.paused_reason or 'no reason was given'}); nothing was sent",
            for_operators=f"when it may go on: dashtam integrations resume {provider_key}",
            for_clients="an operator has to resume it",
        )


def over_quota(key: str, logins: int, alias: str, until: datetime, now: datetime) -> Finding:
    """The finding for logins that wait for a quota."""
    who = f"{alias} waits" if logins == 1 else f"{logins} logins wait, {alias} first"
    what = f"a quota of calls is used up; {who} and goes on {when(until, now)}"
    return Finding(key, True, what, f"it goes on by itself; to sync less often: {mending.less_often(alias)}")


def of_login(provider: ProviderRow) -> Finding | None:
    """The reason that holds up this login only."""
    reason = provider.status_reason or "no reason was given"
    match provider.status:
        case ProviderStatus.PAUSED:
            mend = f"when it may go on: dashtam providers resume {provider.id}"
            return Finding(provider.alias, True, f"paused ({reason}); it is neither refreshed nor synced", mend)
        case ProviderStatus.NEEDS_REAUTH:
            why = _LINK_AGAIN.get(reason, "the provider no longer accepts the user's consent")
            what = (
                f"it needs its user's consent again ({reason}): {why}. All calls for it have stopped; its rows are kept"
            )
            return Finding(provider.alias, True, what, f"its user must link it again: {mending.link_again(provider)}")
        case ProviderStatus.PENDING:
            what = "it was created but never linked, so there is no token to work with"
            return Finding(provider.alias, True, what, f"link it: {mending.link_again(provider)}")
    return None


_MANY = {
    "paused": ("are paused", "dashtam providers list --status paused"),
    "needs_reauth": ("need their users", "dashtam providers list --status needs_reauth"),
}
_LINK_AGAIN = {
    "lost_rotation": "the provider may have replaced the token without our learning the new one",
    "grant_expired": "the user's consent has ended, and a refresh never extends it",
}


def _logins(rows: Sequence[ProviderRow]) -> list[Finding]:
    first = of_login(rows[0])
    if first is None or len(rows) == 1:
        return [] if first is None else [first]
    many = f"{_LISTED} or more" if len(rows) == _LISTED else str(len(rows))
    word, all_of_them = _MANY[rows[0].status]
    return [Finding("logins", True, f"{many} {word} (`{all_of_them}`); the first: {first.sentence}", first.mend)]
