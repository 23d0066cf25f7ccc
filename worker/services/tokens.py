"""Token refresh. The protocol, in the order in which it happens; each step is a method of `_Batch`.

1. Lease the tokens and re-read them under the lease; who finds one leased leaves it, or waits (`access_token`).
   What a dead worker left behind comes first: its answer may be in the journal, else its outcome is unknown.
2. In the same transaction, write down the attempts that are about to be sent.
3. Present each refresh token once, within a deadline shorter than the lease.
4. First act after an answer: one transaction stores the token (generation + 1), the provider's clocks, the attempt as
   done and the audit row, fenced by lease and generation. Answers that have arrived together are stored together.
5. An answer that cannot be stored, whatever the reason, goes to the journal.
6. All else is settled by the table in `refresh_outcomes`; an unknown outcome is tried exactly once more.

No transaction is open across a call, and a worker may die between any two of these lines: docs/refresh.md goes through
them one by one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import structlog
from msgspec import structs

from worker import ending, failpoints, metrics
from worker.crud import notices, tokens
from worker.crud.tokens import Attempt, LeasedToken, NewToken, Settlement
from worker.errors import (
    EncryptionError,
    Fenced,
    OutcomeUnknown,
    ProviderError,
    ReauthRequired,
    Scope,
    Transient,
    Unavailable,
)
from worker.integrations.base import Caller
from worker.models.vocabulary import ProviderStatus, Trigger
from worker.runtime import Runtime
from worker.services import availability, due, journal
from worker.services.refresh_claims import claim_refresh_due
from worker.services.refresh_outcomes import LOST_ROTATION, result_of, settle_failure
from worker.services.refresh_plan import Call, NotSent, plan, seal_answer, unreadable
from worker.services.token_results import AccessToken, Outcome, RefreshResult, RefreshSummary
from worker.services.token_states import usable, why_not_leased

__all__ = [
    "AccessToken",
    "Outcome",
    "RefreshResult",
    "RefreshSummary",
    "access_token",
    "claim_refresh_due",
    "refresh_providers",
]

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = structlog.get_logger()

_LEASE_NEARLY_OVER = "lease_nearly_over"
_REFRESHES_IN_A_ROW = 3
"""One may only have been the journal's, and has run out there; a provider whose tokens do not last is not hammered."""


async def access_token(
    runtime: Runtime, provider_id: UUID, *, caller: Caller, stale_generation: int | None = None
) -> AccessToken:
    """A token to call the provider with; refreshed first when it has run out or was refused.

    Whoever finds another worker refreshing it waits and reads again.

    Args:
        runtime: the process's.
        provider_id: whose.
        caller: `manual` may use the share of the quota that is kept back.
        stale_generation: of a token that the provider has just refused.

    Raises:
        NotFound: no such provider.
        Refused: it is not linked, or paused.
        ReauthRequired: only the user can mend it.
        EncryptionError: the stored token cannot be read.
        ProviderError: the refresh failed for now.
        Unavailable: Postgres is away.
    """
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + 2 * runtime.settings.lease_seconds
    pause = 0.02
    refreshed = 0
    while True:
        state = (await runtime.db(tokens.read, ids=[provider_id])).get(provider_id)
        token = usable(state, provider_id=provider_id, stale_generation=stale_generation, encryption=runtime.encryption)
        if isinstance(token, AccessToken):
            return token
        # What was just read will not do; if someone stores another meanwhile, nothing is sent.
        refresh = asyncio.ensure_future(
            refresh_providers(
                runtime, [provider_id], trigger=Trigger.SYNC, manual=caller.manual, stale_generation=token
            )
        )
        try:
            summary = await asyncio.shield(refresh)
        except asyncio.CancelledError:
            # A sync that is fenced off must not take the answer with it; the call has its deadline.
            await asyncio.gather(refresh, return_exceptions=True)
            raise
        result = summary.results[provider_id]
        if result.outcome is Outcome.BUSY:
            if loop.time() >= give_up_at:
                raise Transient("refresh_in_progress")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        elif result.error is not None:
            raise result.error
        elif result.outcome is Outcome.REFRESHED:
            refreshed += 1
            if refreshed == _REFRESHES_IN_A_ROW:
                raise Transient("token_expires_at_once", scope=Scope.PROVIDER)


async def refresh_providers(
    runtime: Runtime,
    ids: Iterable[UUID],
    *,
    trigger: str = Trigger.SCHEDULE,
    force: bool = False,
    manual: bool = False,
    stale_generation: int | None = None,
) -> RefreshSummary:
    """Refreshes those of these providers whose token is due; each has its own lease, deadline and result.

    Args:
        runtime: the process's.
        ids: a batch is transport, not a unit of failure.
        trigger: who asks; kept with the attempts.
        force: refresh also what is not due.
        manual: a person waits: may use the share of the quota that is kept back.
        stale_generation: refresh also what is not due if it is still of this generation.

    Raises:
        Unavailable: Postgres is away. What was in flight by then is kept in the journal; the rest stays due.
    """
    batch = _Batch(runtime, trigger=trigger, force=force, manual=manual, stale_generation=stale_generation)
    with ending.unfinished():
        return await batch.run(ids)


@dataclass(slots=True)
class _Begun:
    """What one leasing transaction came to."""

    calls: list[Call] = field(default_factory=list)
    left_behind: list[LeasedToken] = field(default_factory=list)
    results: dict[UUID, RefreshResult] = field(default_factory=dict)


@dataclass(slots=True)
class _Ended:
    """A call and what it brought."""

    call: Call
    outcome: NewToken | ProviderError


class _Batch:
    """One batch under one lease owner: a second batch of this very process is fenced off like any other."""

    def __init__(
        self, runtime: Runtime, *, trigger: str, force: bool, manual: bool, stale_generation: int | None
    ) -> None:
        self._runtime = runtime
        self._settings = runtime.settings
        self._owner = uuid4()
        self._trigger = trigger
        self._force = force
        self._manual = manual
        self._stale_generation = stale_generation
        # From the lease on. The integration's own deadline comes first and knows better what happened; this one is for
        # the lease's sake. What is left behind it is for storing.
        self._deadline_s = (self._settings.http_total_seconds + self._settings.lease_seconds) / 2
        self._arrivals: asyncio.Queue[_Ended | None] = asyncio.Queue()
        self._results: dict[UUID, RefreshResult] = {}
        self._journal_away: Unavailable | None = None

    async def run(self, ids: Iterable[UUID]) -> RefreshSummary:
        """Keeps up to `refresh_concurrency` calls in flight and stores what has arrived meanwhile."""
        waiting = deque(dict.fromkeys(ids))
        in_flight = 0
        trouble: Exception | None = None
        async with asyncio.TaskGroup() as calls:
            while waiting or in_flight:
                if ending.is_near():
                    waiting.clear()  # stays due
                room = min(self._settings.refresh_concurrency - in_flight, len(waiting))
                try:
                    begun = await self._begin([waiting.popleft() for _ in range(room)]) if room > 0 else _Begun()
                except Exception as error:  # the answers to what is in flight must still be kept
                    trouble, begun = error, _Begun()
                    waiting.clear()
                for call in begun.calls:
                    calls.create_task(self._present(call))
                for leased in begun.left_behind:
                    calls.create_task(self._resume(leased))
                in_flight += len(begun.calls) + len(begun.left_behind)
                if in_flight:
                    arrived = await self._arrived()
                    in_flight -= len(arrived)
                    await self._keep([item for item in arrived if item is not None])
        summary = RefreshSummary(self._results)
        log.info("refresh_batch", trigger=self._trigger, **summary.counts)
        if trouble is not None:
            raise trouble
        return summary

    # Steps 1 and 2: lease, re-read, write the attempts

    async def _begin(self, ids: Sequence[UUID]) -> _Begun:
        begun = await self._runtime.db(self._lease, ids=ids)
        self._results.update(begun.results)
        return begun

    def _lease(self, session: Session, *, ids: Sequence[UUID]) -> _Begun:
        begun = _Begun()
        settlements: list[Settlement] = []
        leased_ids: set[UUID] = set()
        for leased in tokens.lease(session, ids=ids, owner=self._owner, seconds=self._settings.lease_seconds):
            leased_ids.add(leased.provider_id)
            if leased.unknowns:
                begun.left_behind.append(leased)
                continue
            planned = self._plan(leased)
            if isinstance(planned, Call):
                begun.calls.append(planned)
            else:
                settlements.append(planned.settlement)
                begun.results[leased.provider_id] = planned.result
        tokens.begin_attempts(session, attempts=[self._attempt(call) for call in begun.calls], owner=self._owner)
        tokens.settle(session, settlements=settlements, owner=self._owner)
        if missed := set(ids) - leased_ids:
            states = tokens.read(session, ids=missed)
            begun.results.update({id_: why_not_leased(states.get(id_)) for id_ in missed})
        return begun

    def _plan(self, leased: LeasedToken) -> Call | NotSent:
        planned = plan(
            leased,
            integrations=self._runtime.integrations,
            encryption=self._runtime.encryption,
            force=self._force,
            stale_generation=self._stale_generation,
        )
        if isinstance(planned, NotSent) and isinstance(planned.result.error, EncryptionError):
            log.error("token_unreadable", provider_id=str(leased.provider_id), error=str(planned.result.error))
        return planned

    def _attempt(self, call: Call) -> Attempt:
        leased = call.leased
        return Attempt(
            id=call.attempt_id, provider_id=leased.provider_id, generation=leased.generation, trigger=self._trigger
        )

    async def _resume(self, leased: LeasedToken) -> None:
        """Never raises; meanwhile the others are presented and stored."""
        try:
            recovered = await self._recover(leased)
        except Unavailable as error:  # its lease runs out by itself
            recovered = RefreshResult(Outcome.DEFERRED, error)
        except Exception as error:  # the same
            log.error("recovery_unexpected", provider_id=str(leased.provider_id), error=type(error).__name__)
            recovered = RefreshResult(Outcome.DEFERRED, Transient("unexpected_error", scope=Scope.PROVIDER))
        if isinstance(recovered, Call):
            await self._present(recovered)
        else:
            self._results[leased.provider_id] = recovered
            self._arrivals.put_nowait(None)

    async def _recover(self, leased: LeasedToken) -> Call | RefreshResult:
        """This generation was presented before and nobody knows what came of it: the journal, one retry, or the end."""
        try:
            kept = await self._find_in_journal(leased)
            if kept is not None:
                await journal.apply(self._runtime, kept, owner=self._owner)
                return RefreshResult(Outcome.REFRESHED)
        except Unavailable as error:
            wait_until = leased.leased_at + due.RETRY_UNKNOWN_AFTER
            return await self._leave(NotSent(_untouched(leased, wait_until), RefreshResult(Outcome.DEFERRED, error)))
        except EncryptionError as error:
            return await self._leave(unreadable(leased, error))
        except Fenced:
            return RefreshResult(Outcome.BUSY)
        return await self._runtime.db(self._retry_or_end, leased=leased)

    async def _leave(self, not_sent: NotSent) -> RefreshResult:
        await self._runtime.db(tokens.settle, settlements=[not_sent.settlement], owner=self._owner)
        return not_sent.result

    async def _find_in_journal(self, leased: LeasedToken) -> NewToken | None:
        # One that hangs is waited for once, not for every provider of the batch.
        if self._journal_away is not None:
            raise self._journal_away
        try:
            return await journal.find(self._runtime, leased.provider_id, leased.generation)
        except Unavailable as error:
            self._journal_away = error
            raise

    def _retry_or_end(self, session: Session, *, leased: LeasedToken) -> Call | RefreshResult:
        if self._is_too_late(leased):
            wait_until = due.retry_at(leased.leased_at, provider_id=leased.provider_id, failures=1)
            tokens.settle(session, settlements=[_untouched(leased, wait_until)], owner=self._owner)
            return RefreshResult(Outcome.DEFERRED, Transient(_LEASE_NEARLY_OVER, scope=Scope.PROVIDER))
        tokens.mark_unknown(session, provider_id=leased.provider_id, generation=leased.generation)
        if leased.unknowns > 1:
            lost = OutcomeUnknown(LOST_ROTATION)
            end = settle_failure(leased, lost, now=leased.leased_at, attempt_id=None, task_id=_task_id())
            self._record(session, answers=[], settlements=[end])
            return result_of(end, lost)
        planned = self._plan(leased)
        if isinstance(planned, Call):
            tokens.begin_attempts(session, attempts=[self._attempt(planned)], owner=self._owner)
            return planned
        tokens.settle(session, settlements=[planned.settlement], owner=self._owner)
        return planned.result

    # Step 3: present

    async def _present(self, call: Call) -> None:
        """Never raises and never repeats."""
        # This call's own context: the lines of the others are not touched.
        structlog.contextvars.bind_contextvars(
            provider_id=str(call.leased.provider_id), attempt=call.leased.unknowns + 1
        )
        failpoints.reach(self._settings.failpoints, "before_send")
        outcome: NewToken | ProviderError
        try:
            if self._is_too_late(call.leased):
                raise Transient(_LEASE_NEARLY_OVER, scope=Scope.PROVIDER)
            async with asyncio.timeout_at(call.leased.asked_at + self._deadline_s):
                answer = await self._runtime.integrations[call.leased.provider_key].refresh(
                    Caller(provider_id=call.leased.provider_id, manual=self._manual), call.refresh_token
                )
            failpoints.reach(self._settings.failpoints, "after_answer")
            outcome = seal_answer(
                self._runtime.encryption,
                call.policy,
                answer,
                provider_id=call.leased.provider_id,
                generation=call.leased.generation,
                issued_at=call.leased.leased_at,
                kept_refresh_token=call.refresh_token,
                attempt_id=call.attempt_id,
                task_id=_task_id(),
            )
        except ProviderError as error:
            outcome = error
        except TimeoutError:
            outcome = OutcomeUnknown("deadline")
        except Exception as error:  # a fault of ours leaves us as ignorant as a lost connection
            log.error("refresh_unexpected", provider_key=call.leased.provider_key, error=type(error).__name__)
            outcome = OutcomeUnknown("unexpected_error")
        self._arrivals.put_nowait(_Ended(call, outcome))

    def _is_too_late(self, leased: LeasedToken) -> bool:
        """Whether a call that begins now might outlast its lease: this process was stopped, or waited too long."""
        return time.monotonic() > leased.asked_at + self._deadline_s - self._settings.http_total_seconds

    # Steps 4 to 6: store, journal, settle

    async def _arrived(self) -> list[_Ended | None]:
        """Waits for one and takes all that are there: no delay when idle, few transactions when busy."""
        ended = [await self._arrivals.get()]
        while not self._arrivals.empty():
            ended.append(self._arrivals.get_nowait())
        return ended

    async def _keep(self, ended: Sequence[_Ended]) -> None:
        """Never raises: one provider's trouble is no other's."""
        for item in ended:
            await self._look_in_journal(item)
        answers = [item.outcome for item in ended if isinstance(item.outcome, NewToken)]
        settlements = {
            item.call.leased.provider_id: settle_failure(
                item.call.leased,
                item.outcome,
                now=item.call.now(),
                attempt_id=item.call.attempt_id,
                task_id=_task_id(),
            )
            for item in ended
            if isinstance(item.outcome, ProviderError)
        }
        try:
            async with asyncio.timeout(journal.STORE_SECONDS):
                kept = await self._runtime.db(self._record, answers=answers, settlements=list(settlements.values()))
            failpoints.reach(self._settings.failpoints, "after_commit")
        except Exception as error:
            if len(ended) > 1 and not isinstance(error, Unavailable | TimeoutError):
                log.error("store_group_failed", rows=len(ended), error=type(error).__name__, next="row by row")
                for item in ended:
                    await self._keep([item])
                return
            log.warning("store_failed", rows=len(ended), error=type(error).__name__, kept="answers go to the journal")
            kept = set()
        for item in ended:
            id_, outcome = item.call.leased.provider_id, item.outcome
            if isinstance(outcome, ProviderError):
                self._results[id_] = result_of(settlements[id_], outcome)
            else:
                self._results[id_] = RefreshResult(Outcome.REFRESHED)
        if unstored := [answer for answer in answers if answer.provider_id not in kept]:
            journaled = await self._journal(unstored)
            self._results.update({answer.provider_id: journaled for answer in unstored})
        await self._report(ended)

    def _record(self, session: Session, *, answers: Sequence[NewToken], settlements: Sequence[Settlement]) -> set[UUID]:
        """One transaction. Returns whom the fences let through."""
        kept = tokens.store(session, tokens=answers, owner=self._owner)
        kept |= tokens.settle(session, settlements=settlements, owner=self._owner)
        for settlement in settlements:
            if settlement.status == ProviderStatus.NEEDS_REAUTH and settlement.provider_id in kept:
                notices.enqueue(
                    session,
                    provider_id=settlement.provider_id,
                    stage="needs_reauth",
                    subject_key=f"generation:{settlement.generation}",
                    channels=self._settings.enabled_channels,
                )
        failpoints.reach(self._settings.failpoints, "before_commit")
        return kept

    async def _look_in_journal(self, item: _Ended) -> None:
        """A refused retry may only mean that the first call's answer has reached the journal by now."""
        leased = item.call.leased
        if isinstance(item.outcome, ReauthRequired) and leased.unknowns:
            try:
                item.outcome = await self._find_in_journal(leased) or item.outcome
            except Unavailable:
                log.warning("journal_unseen", provider_id=str(leased.provider_id))

    async def _journal(self, answers: Sequence[NewToken]) -> RefreshResult:
        """Postgres is away, or the fence refused: who holds the lease by now may still need these answers."""
        try:
            await journal.keep(self._runtime, [structs.replace(item, lease_owner=self._owner) for item in answers])
        except Unavailable as error:
            for answer in answers:
                log.critical("answer_lost", provider_id=str(answer.provider_id), error=str(error), next="one retry")
            return RefreshResult(Outcome.UNKNOWN, error)
        return RefreshResult(Outcome.JOURNALED, Unavailable("the new token is in the journal until it can be stored"))

    async def _report(self, ended: Sequence[_Ended]) -> None:
        by_key: dict[str, list[_Ended]] = {}
        for item in ended:
            by_key.setdefault(item.call.leased.provider_key, []).append(item)
            self._observe(item.call)
        for provider_key, items in by_key.items():
            try:
                async with asyncio.timeout(journal.STORE_SECONDS):
                    await availability.report(
                        self._runtime,
                        provider_key,
                        [item.outcome if isinstance(item.outcome, ProviderError) else None for item in items],
                        provider_ids=[item.call.leased.provider_id for item in items],
                    )
            except (Unavailable, TimeoutError):
                log.warning("availability_unreported", provider_key=provider_key)

    def _observe(self, call: Call) -> None:
        leased, outcome = call.leased, self._results[call.leased.provider_id].outcome
        due_at = due.refresh_due_at(
            call.policy,
            provider_id=leased.provider_id,
            generation=leased.generation,
            issued_at=leased.issued_at,
            lifetime=leased.lifetime,
        )
        if outcome is not Outcome.REFRESHED or due_at is None or leased.lifetime is None:
            metrics.observe_refresh(leased.provider_key, outcome)
            return
        now = call.now()
        metrics.observe_refresh(
            leased.provider_key,
            outcome,
            lag_s=(now - due_at).total_seconds(),
            in_time=now < leased.issued_at + leased.lifetime,
        )


def _untouched(leased: LeasedToken, due_at: datetime) -> Settlement:
    return Settlement(provider_id=leased.provider_id, generation=leased.generation, refresh_due_at=due_at)


def _task_id() -> str | None:
    found = structlog.contextvars.get_contextvars().get("task_id")
    return None if found is None else str(found)
