"""Kill switch and circuit breaker of each integration. Every change locks the row of that integration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from worker.crud.notices import enqueue
from worker.crud.outbox import events
from worker.models import IntegrationState


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens, and how long it stays open.

    Attributes:
        failures: consecutive failures that open it.
        providers: from how many different logins they must come.
        open_for: time until the first probe; each failed probe doubles it, up to `open_at_most`.
    """

    failures: int
    providers: int
    open_for: timedelta
    open_at_most: timedelta


def count_failures(
    session: Session,
    *,
    provider_key: str,
    failures: int,
    consecutive: bool,
    failing: Sequence[str],
    now: datetime,
    policy: BreakerPolicy,
) -> tuple[IntegrationState, bool]:
    """Adds failures of the integration as a whole. Opens the breaker when there are enough.

    `failing` names the logins that failed; `consecutive` means that there was no success before them in this report.

    Returns:
        The state, and whether this call opened the breaker.
    """
    state = _lock(session, provider_key)
    known = list(state.failing) if consecutive else []
    state.failures = failures + (state.failures if consecutive else 0)
    state.failing = list(dict.fromkeys([*known, *failing]))[: policy.providers]
    tripped = state.failures >= policy.failures and len(state.failing) >= policy.providers
    # A probe is one call of one login. If it fails, the breaker opens again.
    if state.breaker == "half_open" or (state.breaker == "closed" and tripped):
        if state.breaker == "closed":
            reason = f"{len(state.failing)} logins had no usable answer, {state.failures} calls in a row"
            events.integration_alarm(session, provider_key=provider_key, kind="outage", reason=reason)
        opened_at = state.opened_at or now
        wait = min(max(now - opened_at, policy.open_for), policy.open_at_most)
        state.breaker, state.opened_at, state.probe_at = "open", opened_at, now + wait
        return state, True
    return state, False


def count_success(session: Session, *, provider_key: str) -> bool:
    """Closes the breaker and resets the failures after a success. Returns whether the breaker was not closed."""
    state = _lock(session, provider_key)
    was_open = state.breaker != "closed"
    state.breaker, state.failures, state.failing = "closed", 0, []
    state.opened_at = state.probe_at = None
    if was_open:
        events.integration_recovered(session, provider_key=provider_key)
    return was_open


def let_probe_through(session: Session, *, provider_key: str, now: datetime) -> bool:
    """Makes a breaker half-open if its `probe_at` has come. Returns whether this call did it."""
    statement = (
        update(IntegrationState)
        .where(
            IntegrationState.provider_key == provider_key,
            IntegrationState.breaker == "open",
            IntegrationState.probe_at <= now,
        )
        .values(breaker="half_open")
        .returning(IntegrationState.provider_key)
    )
    return session.execute(statement).first() is not None


def pause(session: Session, *, provider_key: str, reason: str, actor: str, now: datetime) -> bool:
    """Stops all calls of an integration. Returns False, and changes nothing, if it is paused already."""
    state = _lock(session, provider_key)
    if state.paused_at is not None:
        return False
    state.paused_at, state.paused_reason, state.paused_by = now, reason, actor
    return True


def count_refused(
    session: Session, *, provider_key: str, call: str, logins: Sequence[str], now: datetime, within: timedelta
) -> int:
    """Adds logins whose call was refused. Removes all earlier ones if the first is older than `within`.

    Returns how many different logins have had this kind of call refused.
    """
    state = _lock(session, provider_key)
    known = list(state.refused)
    if state.refused_since is None or now - state.refused_since > within:
        known, state.refused_since = [], now
    state.refused = list(dict.fromkeys([*known, *(f"{call}:{login}" for login in logins)]))
    return sum(entry.startswith(f"{call}:") for entry in state.refused)


def forget_refused(session: Session, *, provider_key: str, call: str) -> None:
    """Removes the refused logins of this kind of call: a success shows that our application is not refused."""
    state = _lock(session, provider_key)
    state.refused = [entry for entry in state.refused if not entry.startswith(f"{call}:")]
    if not state.refused:
        state.refused_since = None


def raise_alarm(session: Session, *, provider_key: str, reason: str, now: datetime, channels: Sequence[str]) -> bool:
    """Pauses an integration whose client credentials are refused, and queues one notice to the operator.

    Returns whether this call raised the alarm.
    """
    state = _lock(session, provider_key)
    if state.alarm is not None:
        return False
    state.alarm, state.alarm_at = reason, now
    pause(session, provider_key=provider_key, reason=f"app_misconfigured: {reason}", actor="system", now=now)
    enqueue(
        session,
        provider_key=provider_key,
        stage="app_misconfigured",
        subject_key=f"alarm:{now.isoformat()}",
        channels=channels,
        due_at=now,
    )
    events.integration_alarm(session, provider_key=provider_key, kind="app_misconfigured", reason=reason)
    return True


def resume(session: Session, *, provider_key: str) -> bool:
    """Ends a pause, clears the alarm and closes the breaker. Returns whether it was paused."""
    state = _lock(session, provider_key)
    was_paused = state.paused_at is not None
    if state.alarm is not None or state.breaker != "closed":
        events.integration_recovered(session, provider_key=provider_key)
    state.paused_at = state.paused_reason = state.paused_by = None
    state.alarm = state.alarm_at = None
    state.refused, state.refused_since = [], None
    state.breaker, state.failures, state.failing = "closed", 0, []
    state.opened_at = state.probe_at = None
    return was_paused


def _lock(session: Session, provider_key: str) -> IntegrationState:
    session.execute(insert(IntegrationState).values(provider_key=provider_key).on_conflict_do_nothing())
    return session.scalars(
        select(IntegrationState).where(IntegrationState.provider_key == provider_key).with_for_update()
    ).one()
