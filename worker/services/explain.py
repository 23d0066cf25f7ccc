"""Why a refresh or a sync of one provider did or did not happen, what is next, and who must act. In sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from worker.crud import heartbeats, integration_states
from worker.crud.database import OpenTransaction
from worker.crud.fleet import history, overview
from worker.integrations.registry import REGISTRY
from worker.models import IntegrationState
from worker.models.fleet import Attempt, ProviderRow, Run, TokenFacts
from worker.models.vocabulary import AttemptStatus, ProviderStatus, RunStatus
from worker.services.context import Context
from worker.services.fleet import lookup
from worker.services.fleet.looking import BEAT_LATE


class Actor(StrEnum):
    """Who must act next."""

    NOBODY = "nobody"
    USER = "user"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Facts:
    """All that an explanation is drawn from.

    Attributes:
        refreshable: whether the integration refreshes tokens; None when it is not enabled here.
        last_tick: when any tick was last worked off.
    """

    provider: ProviderRow
    refreshable: bool | None
    token: TokenFacts | None
    attempts: list[Attempt]
    runs: list[Run]
    state: IntegrationState | None
    last_tick: datetime | None
    quarantined: int
    now: datetime
    run_dead_after: timedelta


@dataclass(slots=True)
class Explanation:
    """What to tell an operator.

    Attributes:
        next_refresh_at, next_sync_at: when a tick next dispatches them; None when none will.
    """

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
    refreshable: bool | None,
    now: datetime,
    run_dead_after: timedelta,
) -> Facts:
    """Reads the facts of one provider."""
    return Facts(
        provider=provider,
        refreshable=refreshable,
        token=overview.token_facts(session, provider_id=provider.id),
        attempts=history.attempts(session, provider_ids=[provider.id], limit=5),
        runs=history.runs(session, provider_ids=[provider.id], limit=5),
        state=integration_states.read_states(session).get(provider.provider_key),
        last_tick=max(heartbeats.read_heartbeats(session).values(), default=None),
        quarantined=overview.quarantined(session, provider_id=provider.id),
        now=now,
        run_dead_after=run_dead_after,
    )


async def explain_provider(runtime: Context, given: str) -> tuple[ProviderRow, Explanation]:
    """The login that is meant, and its explanation.

    Raises:
        BadArgument: no login, or more than one, is meant.
        Unavailable: Postgres is out of reach.
    """

    def read(session: OpenTransaction) -> Facts:
        row = lookup.provider(session, given)
        return gather(
            session,
            row,
            refreshable=_refreshable(row.provider_key, runtime.settings.enabled_integrations),
            now=datetime.now(UTC),
            run_dead_after=timedelta(seconds=runtime.settings.run_dead_seconds),
        )

    facts = await runtime.db(read)
    return facts.provider, explain(facts)


def _refreshable(provider_key: str, enabled: Sequence[str]) -> bool | None:
    if provider_key not in enabled or provider_key not in REGISTRY:
        return None
    return REGISTRY[provider_key].refresh_policy is not None


def explain(facts: Facts) -> Explanation:
    """The explanation; pure."""
    told = Explanation()
    _status(facts, told)
    _integration(facts, told)
    _refresh(facts, told)
    _sync(facts, told)
    _beat(facts, told)
    if not told.todo:
        told.todo.append("Nobody has to do anything.")
    return told


_LINK_AGAIN = {
    "lost_rotation": "The provider may have replaced the token without our learning the new one.",
    "grant_expired": "The user's consent has ended; a refresh never extends it.",
}


def _status(facts: Facts, told: Explanation) -> None:
    provider, name = facts.provider, facts.provider.alias
    match provider.status:
        case ProviderStatus.ACTIVE:
            told.status.append(f"{name} is active: the schedule refreshes and syncs it.")
        case ProviderStatus.PENDING:
            told.status.append(f"{name} was created but never linked, so there is no token to work with.")
            _user(told, f"Link it: dashtam link {provider.provider_key}.")
        case ProviderStatus.NEEDS_REAUTH:
            reason = provider.status_reason or "unknown"
            why = _LINK_AGAIN.get(reason, "The provider no longer accepts the user's consent.")
            told.status.append(
                f"{name} needs its user's consent again ({reason}). {why} All calls for it have stopped."
            )
            _user(told, f"The user must link it again: dashtam link {provider.provider_key}. Its rows are kept.")
        case ProviderStatus.PAUSED:
            told.status.append(f"{name} is paused ({provider.status_reason or 'no reason was given'}).")
            _operator(told, f"When it may go on: dashtam providers resume {provider.id}.")
        case ProviderStatus.UNLINKED:
            told.status.append(f"{name} was unlinked; its rows are kept and nothing is fetched any more.")
    if provider.status == ProviderStatus.ACTIVE and provider.grant_expires_at is not None:
        left = provider.grant_expires_at - facts.now
        if left <= timedelta(hours=72):
            told.status.append(f"The user's consent ends {_when(provider.grant_expires_at, facts.now)}.")
            _user(told, f"The user should link it again before that: dashtam link {provider.provider_key}.")


def _integration(facts: Facts, told: Explanation) -> None:
    key, state = facts.provider.provider_key, facts.state
    if facts.refreshable is None:
        told.status.append(f"The integration {key} is not enabled here, so nothing of it is dispatched.")
        _operator(told, f"Add {key} to INTEGRATIONS, if it should be.")
    if state is None:
        return
    if state.alarm is not None:
        told.status.append(f"{key} refuses our own credentials ({state.alarm}); users' links are unharmed.")
        _operator(told, f"Mend {key}'s credentials, then: dashtam integrations resume {key}.")
    elif state.paused_at is not None:
        by = state.paused_by or "somebody"
        told.status.append(f"{key} was paused by {by}: {state.paused_reason or 'no reason was given'}.")
        _operator(told, f"When it may go on: dashtam integrations resume {key}.")
    if state.breaker == "open":
        probe = f" The next probe is {_when(state.probe_at, facts.now)}." if state.probe_at else ""
        told.status.append(f"{key} as a whole does not answer, so its calls wait.{probe} This mends itself.")
    elif state.breaker == "half_open":
        told.status.append(f"{key} is being probed after an outage; one success lets everything through.")


def _refresh(facts: Facts, told: Explanation) -> None:
    provider, now = facts.provider, facts.now
    if facts.refreshable is False:
        told.refresh.append(f"Tokens of {provider.provider_key} do not expire; there is nothing to refresh.")
        return
    if provider.refreshed_at is not None:
        told.refresh.append(f"The token was last stored {_when(provider.refreshed_at, now)}.")
    if facts.attempts:
        told.refresh.append(_attempt(facts.attempts[0], now))
    if provider.status != ProviderStatus.ACTIVE:
        told.refresh.append("No refresh will be dispatched while it is not active.")
        return
    if provider.access_expires_at is not None:
        word = "ends" if provider.access_expires_at > now else "ended"
        told.refresh.append(f"The access token {word} {_when(provider.access_expires_at, now)}.")
    if facts.token is not None and facts.token.lease_until is not None and facts.token.lease_until > now:
        told.refresh.append(
            f"A worker is refreshing it just now; its lease ends {_when(facts.token.lease_until, now)}."
        )
    told.next_refresh_at = provider.refresh_due_at
    told.refresh.append(_next("refresh", provider.refresh_due_at, provider.refresh_failures, now))


def _attempt(attempt: Attempt, now: datetime) -> str:
    when = _when(attempt.started_at, now)
    asked = f"asked for by {attempt.trigger}"
    match attempt.status:
        case AttemptStatus.DONE:
            return f"The last attempt succeeded {when}, {asked}."
        case AttemptStatus.SENT:
            return f"An attempt was sent {when}, {asked}, and its outcome is not yet known."
        case AttemptStatus.UNKNOWN:
            return f"The last attempt ended without a readable answer {when}; it is retried once with the same token."
        case AttemptStatus.NOT_SENT:
            return f"The last attempt did not leave this side {when} ({attempt.reason}); its token was not used."
        case AttemptStatus.DEFERRED:
            return f"The last attempt was put off {when} ({attempt.reason}): a quota was used up."
    return f"The last attempt failed {when}, {asked}: {attempt.error} ({attempt.reason})."


def _sync(facts: Facts, told: Explanation) -> None:
    provider, now = facts.provider, facts.now
    if not facts.runs:
        told.sync.append("It was never synced.")
    else:
        told.sync.append(_run(facts.runs[0], now, facts.run_dead_after))
        good = next((run for run in facts.runs if run.status == RunStatus.COMPLETED), None)
        if facts.runs[0].status in (RunStatus.FAILED, RunStatus.PARTIAL) and good is not None:
            told.sync.append(f"The last complete one began {_when(good.started_at, now)}.")
    if facts.quarantined:
        told.sync.append(f"{facts.quarantined} records are in quarantine.")
        _operator(told, "Look at what could not be trusted: dashtam quarantine list.")
    if provider.status != ProviderStatus.ACTIVE:
        told.sync.append("No sync will be dispatched while it is not active.")
        return
    told.next_sync_at = provider.sync_due_at
    told.sync.append(_next("sync", provider.sync_due_at, provider.sync_failures, now))


def _run(run: Run, now: datetime, dead_after: timedelta) -> str:
    when = _when(run.started_at, now)
    if run.status == RunStatus.RUNNING:
        if now - run.heartbeat_at > dead_after:
            return f"A run that began {when} has given no sign of life for too long; it will be taken over."
        return f"A run began {when} and is at page {run.pages}."
    rows = f"{run.added} added, {run.changed} changed, {run.removed} removed, {run.unchanged} unchanged"
    if run.status == RunStatus.COMPLETED:
        return f"The last run, {when}, completed: {rows}."
    why = f": {run.error} ({run.error_reason})" if run.error else ""
    kept = "what was committed is kept"
    return f"The last run, {when}, ended {run.status}{why}; {rows}; {kept}. dashtam runs show {run.id} says more."


def _next(what: str, due: datetime | None, failures: int, now: datetime) -> str:
    after = f" after {failures} failure{'s' if failures != 1 else ''} in a row" if failures else ""
    if due is None:
        return f"No {what} is planned."
    if due <= now:
        return f"A {what} has been due since {_when(due, now)}{after}; the next tick dispatches it."
    return f"The next {what} is due {_when(due, now)}{after}."


def _beat(facts: Facts, told: Explanation) -> None:
    if facts.last_tick is not None and facts.now - facts.last_tick <= BEAT_LATE:
        return
    words = (
        "No tick was ever worked off"
        if facts.last_tick is None
        else f"The last tick was worked off {_when(facts.last_tick, facts.now)}"
    )
    told.status.append(f"{words}: beat or the workers are down, so nothing is dispatched.")
    _operator(told, "Start beat and the workers; dashtam status and dashtam doctor show which are missing.")


def _user(told: Explanation, what: str) -> None:
    told.todo.append(what)
    if told.must_act is Actor.NOBODY:
        told.must_act = Actor.USER


def _operator(told: Explanation, what: str) -> None:
    told.todo.append(what)
    told.must_act = Actor.OPERATOR


def _when(moment: datetime, now: datetime) -> str:
    seconds = int(abs((moment - now).total_seconds()))
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds")):
        if seconds >= 2 * size or size == 1:
            words = f"{seconds // size} {unit}"
            break
    return f"in {words}" if moment > now else f"{words} ago"
