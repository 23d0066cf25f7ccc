"""Recovery of attempts that a dead worker left without an outcome: the token was presented, and the result is unknown.

The answer may be in the journal. If not, the token is presented exactly once more. If that was already done, the
rotation is lost.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from worker.crud.database import OpenTransaction
from worker.crud.refresh import spools, tokens
from worker.crud.refresh.records import LeasedToken, NewToken, Settlement
from worker.errors import EncryptionError, Fenced, OutcomeUnknown, Scope, Transient, Unavailable, Unsent
from worker.process.logger import Logger
from worker.services.refresh import due, journal, unsent
from worker.services.refresh.lease import BatchLease, Writing, task_id
from worker.services.refresh.outcomes import LOST_ROTATION, result_of, settle_failure
from worker.services.refresh.plan import Call, NotSent, unreadable
from worker.services.refresh.results import Outcome, RefreshResult

log = Logger(__name__)

_ASK_AGAIN = timedelta(seconds=10)
"""Wait before the next check whether the host that may have the answer has reported."""


class Recovery:
    """Recovery of the attempts that one batch finds left behind."""

    def __init__(self, lease: BatchLease) -> None:
        self._lease = lease
        self._runtime = lease.runtime
        self._journal_away: Unavailable | None = None

    async def recover(self, leased: LeasedToken) -> Call | RefreshResult:
        """The call to make, with its attempt written, or the result if there is no call. Never raises."""
        try:
            return await self._recover(leased)
        except Unavailable as error:  # the lease ends by itself
            return RefreshResult(Outcome.DEFERRED, error)
        except Exception as error:  # the same
            log.error("recovery_unexpected", provider_id=str(leased.provider_id), error=type(error).__name__)
            return RefreshResult(Outcome.DEFERRED, Transient("unexpected_error", scope=Scope.PROVIDER))

    async def find_in_journal(self, leased: LeasedToken) -> NewToken | None:
        """The answer to a presentation of this generation; None if the journal has none.

        Raises:
            Unavailable: the journal cannot be asked. After the first time-out of a batch it is not asked again.
        """
        if self._journal_away is not None:
            raise self._journal_away
        try:
            return await journal.find(self._runtime, leased.provider_id, leased.generation)
        except Unavailable as error:
            self._journal_away = error
            raise

    async def _recover(self, leased: LeasedToken) -> Call | RefreshResult:
        try:
            kept = await self.find_in_journal(leased)
            if kept is not None:
                await journal.apply(self._runtime, kept, owner=self._lease.owner)
                return RefreshResult(Outcome.REFRESHED)
            await unsent.tell(self._runtime)
        except Unavailable as error:
            wait_until = leased.leased_at + due.RETRY_UNKNOWN_AFTER
            return await self._leave(NotSent(_untouched(leased, wait_until), RefreshResult(Outcome.DEFERRED, error)))
        except EncryptionError as error:
            return await self._leave(unreadable(leased, error))
        except Fenced:
            return RefreshResult(Outcome.BUSY)
        return await self._lease.write(self._retry_or_end, leased=leased)

    async def _leave(self, not_sent: NotSent) -> RefreshResult:
        await self._runtime.db(tokens.settle, settlements=[not_sent.settlement], owner=self._lease.owner)
        return not_sent.result

    def _retry_or_end(self, session: OpenTransaction, writing: Writing, *, leased: LeasedToken) -> Call | RefreshResult:
        now = self._lease.read_again(session, leased)
        if now is None:
            return RefreshResult(Outcome.BUSY)
        leased = now
        if spools.must_wait(
            session,
            provider_id=leased.provider_id,
            generation=leased.generation,
            own=self._runtime.spool_id,
            lease=timedelta(seconds=self._runtime.settings.lease_seconds),
        ):
            wait_until = leased.leased_at + _ASK_AGAIN
            tokens.settle(session, settlements=[_untouched(leased, wait_until)], owner=self._lease.owner)
            return RefreshResult(Outcome.DEFERRED, Transient("answer_may_wait_on_another_host", scope=Scope.PROVIDER))
        if self._lease.is_too_late(leased):
            wait_until = due.retry_at(leased.leased_at, provider_id=leased.provider_id, failures=1)
            tokens.settle(session, settlements=[_untouched(leased, wait_until)], owner=self._lease.owner)
            return RefreshResult(Outcome.DEFERRED, Unsent("lease_nearly_over", scope=Scope.PROVIDER))
        tokens.mark_unknown(session, provider_id=leased.provider_id, generation=leased.generation)
        if leased.unanswered > 1:
            lost = OutcomeUnknown(LOST_ROTATION)
            end = settle_failure(leased, lost, now=leased.leased_at, attempt_id=None, task_id=task_id())
            self._lease.record(session, answers=[], settlements=[end])
            return result_of(end, lost)
        planned = self._lease.plan(leased)
        if isinstance(planned, Call):
            self._lease.write_attempts(session, writing, [planned])
            return planned
        tokens.settle(session, settlements=[planned.settlement], owner=self._lease.owner)
        return planned.result


def _untouched(leased: LeasedToken, due_at: datetime) -> Settlement:
    return Settlement(provider_id=leased.provider_id, generation=leased.generation, refresh_due_at=due_at)
