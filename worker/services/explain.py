"""Explains in sentences why a refresh or sync of one provider happened or not, what comes next, and who must act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import takewhile

from worker.crud.database import OpenTransaction
from worker.crud.fleet import breakers, history, overview, stored
from worker.errors import AccessExpired, GatewayError, InstitutionDown, OutcomeUnknown, RateLimited, Transient
from worker.models import IntegrationState
from worker.models.fleet import Attempt, ProviderRow, Run, TokenFacts
from worker.models.vocabulary import AttemptStatus, ProviderStatus, RunStatus
from worker.services import health, mending
from worker.services.context import Context
from worker.services.findings import Finding
from worker.services.fleet import held, lookup
from worker.services.transport import Transport
from worker.settings import Settings
from worker.text.spans import when


class Actor(StrEnum):
    """Who must act next."""

    NOBODY = "nobody"
    USER = "user"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that an explanation is made from.

    Attributes:
        causes: problems that stop the work for every login, the root cause first.
        is_enabled: whether the login's integration is enabled here.
        opens_after: which failures open the integration's breaker.
        need_user: names of the accounts that the last run could not read because their user must act.
    """

    provider: ProviderRow
    causes: Sequence[Finding]
    is_enabled: bool
    token: TokenFacts | None
    attempts: list[Attempt]
    runs: list[Run]
    state: IntegrationState | None
    quarantined: int
    now: datetime
    run_dead_after: timedelta
    opens_after: held.BreakerLimits
    need_user: Sequence[str] = ()


@dataclass(slots=True)
class Explanation:
    """What an operator should know about one login.

    Attributes:
        causes: problems that stop the work for this login, the root cause first; empty when there are none.
        next_refresh_at, next_sync_at: when a tick next dispatches them; None when no tick will.
    """

    causes: list[Finding] = field(default_factory=list)
    status: list[str] = field(default_factory=list)
    refresh: list[str] = field(default_factory=list)
    sync: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)
    must_act: Actor = Actor.NOBODY
    next_refresh_at: datetime | None = None
    next_sync_at: datetime | None = None


def gather(
    session: OpenTransaction,
    provider: ProviderRow,
    *,
    causes: Sequence[Finding],
    is_enabled: bool,
    now: datetime,
    settings: Settings,
) -> Facts:
    """Reads the facts about one provider."""
    return Facts(
        provider=provider,
        causes=causes,
        is_enabled=is_enabled,
        token=overview.token_facts(session, provider_id=provider.id),
        attempts=history.attempts(session, provider_ids=[provider.id], limit=5),
        runs=history.runs(session, provider_ids=[provider.id], limit=5),
        state=breakers.read_states(session).get(provider.provider_key),
        quarantined=stored.quarantined(session, provider_id=provider.id),
        now=now,
        run_dead_after=timedelta(seconds=settings.run_dead_seconds),
        opens_after=held.BreakerLimits.of(settings),
        need_user=overview.need_user(session, provider_id=provider.id),
    )


async def explain_provider(
    runtime: Context, given: str, transport: Transport | None
) -> tuple[ProviderRow, Explanation]:
    """Finds the login and explains its state. Without `transport`, servers and processes are not checked.

    Raises:
        BadArgument: `given` names no login, or more than one.
        Unavailable: Postgres is out of reach.
    """
    row = await runtime.db(lookup.provider, given)
    causes = [] if transport is None else await health.troubles(runtime, transport, without={"logins"})

    def read(session: OpenTransaction) -> Facts:
        return gather(
            session,
            row,
            causes=causes,
            is_enabled=row.provider_key in runtime.settings.enabled_integrations,
            now=now,
            settings=runtime.settings,
        )

    now = await runtime.now()
    return row, explain(await runtime.db(read))


def explain(facts: Facts) -> Explanation:
    """Makes the explanation from the facts. Pure."""
    told = Explanation()
    key = facts.provider.provider_key
    of_all = held.of_integration(key, facts.state, facts.now, opens_after=facts.opens_after)
    own = (None if of_all else _own_outage(facts), _own_quota(facts), held.of_login(facts.provider))
    told.causes = [*facts.causes, *of_all, *(one for one in own if one)]
    _status(facts, told)
    _refresh(facts, told)
    _sync(facts, told)
    if not told.todo:
        told.todo.append("Nobody has to do anything.")
    return told


def _status(facts: Facts, told: Explanation) -> None:
    provider, name = facts.provider, facts.provider.alias
    told.status += [cause.sentence for cause in told.causes]
    for cause in told.causes:
        by_user = cause.check == name and provider.status != ProviderStatus.PAUSED
        (_user if by_user else _operator)(told, cause.mend)
    match provider.status:
        case ProviderStatus.ACTIVE if told.causes:
            told.status.append(f"{name} is linked; what is said above may keep it from being refreshed and synced.")
        case ProviderStatus.ACTIVE:
            told.status.append(f"{name} is active: the schedule refreshes and syncs it.")
        case ProviderStatus.UNLINKED:
            told.status.append(f"{name} was unlinked; its rows are kept and nothing is fetched any more.")
            told.status.append(f"To link it again: {mending.link_again(provider)}")
    if facts.is_enabled is False:
        key = provider.provider_key
        told.status.append(f"The integration {key} is not enabled here, so nothing of it is dispatched.")
        _operator(told, f"Add {key} to INTEGRATIONS, if it should be.")
    if provider.status == ProviderStatus.ACTIVE and provider.grant_expires_at is not None:
        left = provider.grant_expires_at - facts.now
        if left <= timedelta(hours=72):
            told.status.append(f"The user's consent ends {when(provider.grant_expires_at, facts.now)}.")
            _user(told, f"The user should link it again before that: {mending.link_again(provider)}")


_UNANSWERED = (Transient.kind, OutcomeUnknown.kind, GatewayError.kind, InstitutionDown.kind)
"""What a refresh or a sync fails with when no answer comes from the provider, or from the institution behind it."""


def _own_outage(facts: Facts) -> Finding | None:
    """Whether the provider has not answered the last refreshes and syncs of this login."""
    if facts.provider.status != ProviderStatus.ACTIVE:
        return None
    ended = [
        *((a.started_at, a.error, a.reason) for a in facts.attempts if a.status not in _UNDECIDED),
        *((r.started_at, r.error, r.error_reason) for r in facts.runs if r.status != RunStatus.RUNNING),
    ]
    newest_first = sorted(ended, key=lambda one: one[0], reverse=True)
    failed = list(takewhile(lambda one: one[1] in _UNANSWERED, newest_first))
    if not failed:
        return None
    _, error, reason = failed[0]
    provider = facts.provider
    told = f"{error}: {reason or 'no reason'}"
    return held.unanswered(provider.provider_key, provider.id, len(failed), failed[-1][0], told, facts.now)


_UNDECIDED = (AttemptStatus.SENT, AttemptStatus.NOT_SENT, AttemptStatus.DEFERRED)


def _own_quota(facts: Facts) -> Finding | None:
    """Whether this login waits for a quota."""
    waits = []
    if facts.attempts and _is_quota(facts.attempts[0].error, facts.attempts[0].reason):
        waits.append(facts.provider.refresh_due_at)
    if facts.runs and _is_quota(facts.runs[0].error, facts.runs[0].error_reason):
        waits.append(facts.provider.sync_due_at)
    until = min((due for due in waits if due is not None and due > facts.now), default=None)
    if until is None:
        return None
    return held.over_quota(facts.provider.provider_key, 1, facts.provider.alias, until, facts.now)


def _is_quota(error: str | None, reason: str | None) -> bool:
    return error == RateLimited.kind and reason not in held.NO_QUOTA


def _refresh(facts: Facts, told: Explanation) -> None:
    provider, now = facts.provider, facts.now
    if facts.token is not None and not facts.token.has_refresh_token and provider.refresh_due_at is None:
        told.refresh.append(f"Tokens of {provider.provider_key} do not expire; there is nothing to refresh.")
        return
    if provider.refreshed_at is not None:
        told.refresh.append(f"The token was last stored {when(provider.refreshed_at, now)}.")
    if facts.attempts:
        told.refresh.append(_attempt(facts.attempts[0], now))
    if provider.status != ProviderStatus.ACTIVE:
        told.refresh.append("No refresh will be dispatched while it is not active.")
        return
    if provider.access_expires_at is not None:
        word = "ends" if provider.access_expires_at > now else "ended"
        told.refresh.append(f"The access token {word} {when(provider.access_expires_at, now)}.")
    if facts.token is not None and facts.token.lease_until is not None and facts.token.lease_until > now:
        told.refresh.append(f"A worker is refreshing it just now; its lease ends {when(facts.token.lease_until, now)}.")
    told.next_refresh_at = None if told.causes else provider.refresh_due_at
    told.refresh.append(_next("refresh", provider.refresh_due_at, provider.refresh_failures, now, told))


_PUT_OFF = {
    "integration_paused": "the integration is paused",
    "breaker_open": "the provider did not answer",
    "quota_uncounted": "Redis was away, so that calls could not be counted",
    "refresh_waits": "the last answer was unreadable, and the token is presented again a little later",
}


def _attempt(attempt: Attempt, now: datetime) -> str:
    then = when(attempt.started_at, now)
    asked = f"asked for by {attempt.trigger}"
    match attempt.status:
        case AttemptStatus.DONE:
            return f"The last attempt succeeded {then}, {asked}."
        case AttemptStatus.SENT:
            return f"An attempt was sent {then}, {asked}, and its outcome is not yet known."
        case AttemptStatus.UNKNOWN:
            return f"The last attempt ended without a readable answer {then}; it is retried once with the same token."
        case AttemptStatus.NOT_SENT:
            return f"The last attempt did not leave this side {then} ({attempt.reason}); its token was not used."
        case AttemptStatus.DEFERRED:
            why = _PUT_OFF.get(attempt.reason or "", "a quota was used up")
            return f"The last attempt was put off {then} ({attempt.reason}): {why}."
    return f"The last attempt failed {then}, {asked}: {attempt.error} ({attempt.reason})."


def _sync(facts: Facts, told: Explanation) -> None:
    provider, now = facts.provider, facts.now
    if not facts.runs:
        told.sync.append("It was never synced.")
    else:
        told.sync.append(_run(facts.runs[0], now, facts.run_dead_after))
        good = next((run for run in facts.runs if run.status == RunStatus.COMPLETED), None)
        if facts.runs[0].status in (RunStatus.FAILED, RunStatus.PARTIAL) and good is not None:
            told.sync.append(f"The last complete one began {when(good.started_at, now)}.")
    if provider.hooked_at is not None:
        told.sync.append(f"The provider's last hook about new data came {when(provider.hooked_at, now)}.")
    if (refused := _refused_anew(facts.runs)) > 1:
        told.sync.append(
            f"The last {refused} runs failed because the provider refused a token that had just been refreshed."
            " The login stays active, because this often passes."
        )
        _user(told, f"If it goes on for a day, the user should link it again: {mending.link_again(provider)}")
    if facts.need_user and provider.status == ProviderStatus.ACTIVE:
        told.sync.append(f"Not updated, because their user must act: {'; '.join(facts.need_user)}.")
        key = provider.provider_key
        _user(
            told, f"The user should sign in at the provider ({key}) and repair the connection of these accounts there."
        )
    if facts.quarantined:
        told.sync.append(f"{facts.quarantined} records are in quarantine.")
        _operator(told, "Look at what could not be trusted: dashtam quarantine list.")
    if provider.status != ProviderStatus.ACTIVE:
        told.sync.append("No sync will be dispatched while it is not active.")
        return
    told.next_sync_at = None if told.causes else provider.sync_due_at
    told.sync.append(_next("sync", provider.sync_due_at, provider.sync_failures, now, told))


def _refused_anew(runs: Sequence[Run]) -> int:
    """How many of the last runs, one after the other, ended because a new token was refused, too."""
    ended = (run for run in runs if run.status != RunStatus.RUNNING)
    return sum(1 for _ in takewhile(lambda run: run.error == AccessExpired.kind, ended))


def _run(run: Run, now: datetime, dead_after: timedelta) -> str:
    then = when(run.started_at, now)
    if run.status == RunStatus.RUNNING:
        if now - run.heartbeat_at > dead_after:
            return f"A run that began {then} has given no sign of life for too long; it will be taken over."
        return f"A run began {then} and is at page {run.pages}."
    rows = f"{run.added} added, {run.changed} changed, {run.removed} removed, {run.unchanged} unchanged"
    if run.status == RunStatus.COMPLETED:
        return f"The last run, {then}, completed: {rows}."
    why = f": {run.error} ({run.error_reason})" if run.error else ""
    kept = "what was committed is kept"
    return f"The last run, {then}, ended {run.status}{why}; {rows}; {kept}. dashtam runs show {run.id} says more."


def _next(what: str, due: datetime | None, failures: int, now: datetime, told: Explanation) -> str:
    after = f" after {failures} failure{'s' if failures != 1 else ''} in a row" if failures else ""
    if due is None:
        return f"No {what} is planned."
    if due <= now:
        then = "the next tick dispatches it" if not told.causes else "it waits, as said above"
        return f"A {what} has been due since {when(due, now)}{after}; {then}."
    then = "." if not told.causes else ", and waits for what is said above."
    return f"The next {what} is due {when(due, now)}{after}{then}"


def _user(told: Explanation, what: str) -> None:
    told.todo.append(what)
    if told.must_act is Actor.NOBODY:
        told.must_act = Actor.USER


def _operator(told: Explanation, what: str) -> None:
    told.todo.append(what)
    told.must_act = Actor.OPERATOR
