"""The refresh protocol: its steps in the order in which they happen. `_Batch` has the same order.

1. Lease the tokens and read them again under the lease. A worker that finds a token leased leaves it, or waits
   (`access_token`). Attempts that a dead worker left behind come first: the answer may be in the journal, otherwise
   the outcome is unknown (`recovery`).
2. In the same transaction, write the attempts that are about to be sent (`lease`).
3. Present each refresh token once, within a deadline shorter than the lease.
4. First act after an answer: one transaction, fenced by lease and generation, stores the token (generation + 1), the
   provider's due times, the attempt as done, and the audit row. Answers that arrive together are stored together.
5. An answer that cannot be stored for any reason goes to the journal; so does one that is not yet stored when the
   task's time is up.
6. All other outcomes are settled by the rules in `outcomes`; an unknown outcome is tried exactly once more.
7. Report the outcomes of the calls to the circuit breaker and the metrics.

No transaction is open during a call, and a worker may die between any two of these steps: docs/refresh.md explains what
happens then.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from uuid import UUID

import structlog
from msgspec import structs

from worker.crud.refresh.records import LeasedToken, NewToken
from worker.errors import (
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    ReauthRequired,
    Scope,
    Transient,
    Unavailable,
    Unsent,
)
from worker.integrations.kit.base import Caller, Departure
from worker.models.vocabulary import Trigger
from worker.process import ending, failpoints
from worker.process.logger import Logger
from worker.services.availability import breaker
from worker.services.context import Context
from worker.services.refresh import journal, spool, unsent
from worker.services.refresh.lease import BatchLease, Begun, store_in_time, task_id
from worker.services.refresh.outcomes import result_of, settle_failure
from worker.services.refresh.plan import Call, Ended, seal_answer
from worker.services.refresh.recovery import Recovery
from worker.services.refresh.results import Outcome, RefreshResult
from worker.telemetry import metrics

log = Logger(__name__)

_TELL_SECONDS = 10.0


@dataclass(slots=True)
class RefreshSummary:
    """The results of one batch, by provider id."""

    results: dict[UUID, RefreshResult] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Number of providers for each outcome."""
        return dict(Counter(str(result.outcome) for result in self.results.values()))


async def refresh_providers(
    runtime: Context,
    ids: Iterable[UUID],
    *,
    trigger: str = Trigger.SCHEDULE,
    force: bool = False,
    manual: bool = False,
    stale_generation: int | None = None,
) -> RefreshSummary:
    """Refreshes those of these providers whose token is due. Each has its own lease, deadline and result.

    Args:
        runtime: the process's context.
        ids: the providers; a failure of one of them does not affect the others.
        trigger: who asks; stored with the attempts.
        force: refresh also tokens that are not due.
        manual: a person waits: the reserved share of the quota may be used.
        stale_generation: refresh also a token that is not due if it still has this generation.

    Raises:
        Unavailable: Postgres is out of reach. Answers of calls in flight are in the journal; the rest is done later.
    """
    lease = BatchLease(runtime, trigger=trigger, force=force, stale_generation=stale_generation, manual=manual)
    with ending.unfinished():
        return await _Batch(lease).run(ids)


class _Batch:
    def __init__(self, lease: BatchLease) -> None:
        self._lease = lease
        self._runtime = lease.runtime
        self._settings = lease.runtime.settings
        self._arrivals: asyncio.Queue[Ended | None] = asyncio.Queue()
        self._results: dict[UUID, RefreshResult] = {}
        self._unkept: dict[UUID, NewToken] = {}

    @cached_property
    def _recovery(self) -> Recovery:
        return Recovery(self._lease)

    async def run(self, ids: Iterable[UUID]) -> RefreshSummary:
        """Presents, stores and settles. Answers that have arrived are kept even if an error ends the batch."""
        try:
            return await self._run(ids)
        except BaseException:
            if self._unkept:
                await self._journal(list(self._unkept.values()))
            raise

    async def _run(self, ids: Iterable[UUID]) -> RefreshSummary:
        """Keeps up to `refresh_concurrency` calls in flight, and stores the answers that have arrived."""
        waiting = deque(dict.fromkeys(ids))
        in_flight = 0
        trouble: Exception | None = None
        await spool.settle(self._runtime)
        if self._runtime.unsent:
            await unsent.try_to_tell(self._runtime)
        async with asyncio.TaskGroup() as calls:
            while waiting or in_flight:
                if ending.is_near():
                    left = RefreshResult(Outcome.DEFERRED, Unavailable("this process is ending; pending work is kept"))
                    self._results.update(dict.fromkeys(waiting, left))
                    waiting.clear()
                room = min(self._settings.refresh_concurrency - in_flight, len(waiting))
                try:
                    begun = await self._begin([waiting.popleft() for _ in range(room)]) if room > 0 else Begun()
                except Exception as error:  # the answers of the calls in flight must still be kept
                    trouble, begun = error, Begun()
                    waiting.clear()
                for call in begun.calls:
                    calls.create_task(self._present(call))
                for leased in begun.left_behind:
                    calls.create_task(self._resume(leased))
                in_flight += len(begun.calls) + len(begun.left_behind)
                if in_flight:
                    if spool.is_due(self._runtime):
                        calls.create_task(spool.settle(self._runtime))  # in parallel: answers must not wait for it
                    arrived = await self._arrived()
                    in_flight -= len(arrived)
                    await self._keep([item for item in arrived if item is not None])
        summary = RefreshSummary(self._results)
        log.info("refresh_batch", trigger=self._lease.trigger, **summary.counts)
        if trouble is not None:
            await unsent.try_to_tell(self._runtime)
            raise trouble
        return summary

    # Steps 1 and 2: lease, re-read, write the attempts

    async def _begin(self, ids: Sequence[UUID]) -> Begun:
        begun = await self._lease.write(self._lease.begin, ids=ids)
        self._results.update(begun.results)
        return begun

    async def _resume(self, leased: LeasedToken) -> None:
        """Recovers an attempt that was left behind; meanwhile the other calls continue. Never raises."""
        recovered = await self._recovery.recover(leased)
        if isinstance(recovered, Call):
            await self._present(recovered)
        else:
            self._results[leased.provider_id] = recovered
            self._arrivals.put_nowait(None)

    # Step 3: present

    async def _present(self, call: Call) -> None:
        """Sends one refresh and queues its outcome. Never raises and never repeats the call."""
        # Bound in this call's own task, so the log lines of other calls are not affected.
        structlog.contextvars.bind_contextvars(
            provider_id=str(call.leased.provider_id), attempt=call.leased.unknowns + 1
        )
        failpoints.reach(self._settings.failpoints, "before_send")
        outcome: NewToken | ProviderError
        departure = self._lease.departure(call.leased)
        try:
            departure.leave()
            async with asyncio.timeout(departure.seconds_left()):
                answer = await self._runtime.integrations[call.leased.provider_key].refresh(
                    Caller(provider_id=call.leased.provider_id, manual=self._lease.manual, departure=departure),
                    call.refresh_token,
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
                task_id=task_id(),
            )
            self._unkept[call.leased.provider_id] = outcome
        except ProviderError as error:
            outcome = error
        except TimeoutError:
            outcome = self._unended(departure, "deadline")
        except Exception as error:  # after an error of ours the outcome is unknown, as after a lost connection
            log.error("refresh_unexpected", provider_key=call.leased.provider_key, error=type(error).__name__)
            outcome = self._unended(departure, "unexpected_error")
        stayed_here = isinstance(outcome, Unsent) or (isinstance(outcome, RateLimited) and departure.held)
        self._arrivals.put_nowait(Ended(call, outcome, unsent=stayed_here))

    @staticmethod
    def _unended(departure: Departure, reason: str) -> Transient:
        return Unsent(reason, scope=Scope.PROVIDER) if departure.held else OutcomeUnknown(reason)

    # Steps 4 to 6: store, journal, settle

    async def _arrived(self) -> list[Ended | None]:
        """Waits for one outcome and takes all that are there: no delay when idle, few transactions when busy."""
        ended = [await self._arrivals.get()]
        while not self._arrivals.empty():
            ended.append(self._arrivals.get_nowait())
        return ended

    async def _keep(self, ended: Sequence[Ended]) -> None:
        """Stores or settles outcomes. Never raises: an error with one provider must not affect the others."""
        for item in ended:
            await self._look_in_journal(item)
        answers = [item.outcome for item in ended if isinstance(item.outcome, NewToken)]
        settlements = {
            item.call.leased.provider_id: settle_failure(
                item.call.leased,
                item.outcome,
                now=item.call.now(),
                attempt_id=item.call.attempt_id,
                task_id=task_id(),
            )
            for item in ended
            if isinstance(item.outcome, ProviderError)
        }
        try:
            kept = await store_in_time(
                self._runtime, partial(self._lease.record, answers=answers, settlements=list(settlements.values()))
            )
            failpoints.reach(self._settings.failpoints, "after_commit")
        except Exception as error:
            if len(ended) > 1 and not isinstance(error, Unavailable):
                log.error("store_group_failed", rows=len(ended), error=type(error).__name__, next="row by row")
                for item in ended:
                    await self._keep([item])
                return
            log.warning("store_failed", rows=len(ended), error=type(error).__name__, kept="answers go to the journal")
            kept = set()
            await unsent.note(self._runtime, [self._lease.attempt(item.call) for item in ended if item.unsent])
        for id_ in kept:
            self._unkept.pop(id_, None)
        for item in ended:
            id_, outcome = item.call.leased.provider_id, item.outcome
            if isinstance(outcome, ProviderError):
                self._results[id_] = result_of(settlements[id_], outcome)
            else:
                self._results[id_] = RefreshResult(Outcome.REFRESHED)
        if unstored := [answer for answer in answers if answer.provider_id not in kept]:
            journaled = await self._journal(unstored)
            for answer in unstored:
                self._unkept.pop(answer.provider_id, None)
            self._results.update({answer.provider_id: journaled for answer in unstored})
        await self._tell(ended)

    async def _look_in_journal(self, item: Ended) -> None:
        """Looks for the first call's answer when its retry is refused: by now it may be in the journal."""
        leased = item.call.leased
        if isinstance(item.outcome, ReauthRequired) and leased.unknowns:
            try:
                found = await self._recovery.find_in_journal(leased)
            except Unavailable:
                log.warning("journal_unseen", provider_id=str(leased.provider_id))
                return
            if found is not None:
                # A new grant is stored by the next drain, in another way; until then nobody has to act.
                item.outcome = Transient("new_grant_waits", scope=Scope.PROVIDER) if found.new_grant else found

    async def _journal(self, answers: Sequence[NewToken]) -> RefreshResult:
        """Keeps answers that were not stored. If a fence refused them, the present holder may still need them."""
        try:
            await journal.keep(
                self._runtime, [structs.replace(item, lease_owner=self._lease.owner) for item in answers]
            )
        except Unavailable as error:
            for answer in answers:
                log.critical("answer_lost", provider_id=str(answer.provider_id), error=str(error), next="one retry")
            return RefreshResult(Outcome.UNKNOWN, error)
        return RefreshResult(Outcome.JOURNALED, Unavailable("the new token is kept in the journal for now"))

    # Step 7: tell

    async def _tell(self, ended: Sequence[Ended]) -> None:
        """Reports how calls have ended to the breaker, the alarm and the metrics. Never raises."""
        by_key: dict[str, list[Ended]] = {}
        for item in ended:
            by_key.setdefault(item.call.leased.provider_key, []).append(item)
            _observe(item.call, self._results[item.call.leased.provider_id].outcome)
        for provider_key, items in by_key.items():
            try:
                async with asyncio.timeout(_TELL_SECONDS):
                    await breaker.report(
                        self._runtime,
                        provider_key,
                        [item.outcome if isinstance(item.outcome, ProviderError) else None for item in items],
                        provider_ids=[item.call.leased.provider_id for item in items],
                    )
            except (Unavailable, TimeoutError):
                log.warning("availability_unreported", provider_key=provider_key)


def _observe(call: Call, outcome: Outcome) -> None:
    leased, due_at = call.leased, call.due_at
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
