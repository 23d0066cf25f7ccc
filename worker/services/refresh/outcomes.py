"""What a refresh without a new token means for its provider; the first rule that applies counts. Pure."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from worker.crud.refresh.records import LeasedToken, Settlement
from worker.errors import (
    AppMisconfigured,
    BadPayload,
    GatewayError,
    OutcomeUnknown,
    ProviderError,
    RateLimited,
    ReauthRequired,
    Scope,
    Unsent,
)
from worker.models.vocabulary import AttemptStatus, ProviderStatus
from worker.services.refresh import due
from worker.services.refresh.results import Outcome, RefreshResult

LOST_ROTATION = "lost_rotation"
"""The provider may have rotated the token, and we did not get the new one."""

_SHARED_SCOPES = (Scope.APP, Scope.INSTITUTION)


def may_have_rotated(error: ProviderError) -> bool:
    """Whether the refresh token may be used up although we have no new one.

    True for every error without a readable answer, and for answers whose token cannot be used.
    """
    return isinstance(error, OutcomeUnknown) or (isinstance(error, BadPayload) and error.reason != "redirect_refused")


def settle_failure(
    leased: LeasedToken, error: ProviderError, *, now: datetime, attempt_id: UUID | None, task_id: str | None = None
) -> Settlement:
    """The settlement that ends the lease after `error`.

    Args:
        leased: the token as it was when the attempt began.
        error: what the integration raised.
        now: the database's time.
        attempt_id: the attempt that was written, if any.
        task_id: for the audit log.
    """
    again_at = due.retry_at(
        now, provider_id=leased.provider_id, failures=leased.refresh_failures + 1, after=error.retry_after
    )
    status, attempt_status = None, AttemptStatus.FAILED
    reason, due_at, failed = error.reason, None, False
    if isinstance(error, ReauthRequired):
        # Refused on the retry after an unknown outcome: the first call rotated the token, and its answer is lost.
        status, reason = ProviderStatus.NEEDS_REAUTH, LOST_ROTATION if leased.unknowns else error.reason
    elif may_have_rotated(error):
        attempt_status = AttemptStatus.UNKNOWN
        if leased.unanswered and not isinstance(error, GatewayError):
            status, reason = ProviderStatus.NEEDS_REAUTH, LOST_ROTATION
        else:
            shown = leased.unknowns + 1
            due_at = due.show_again_at(now, provider_id=leased.provider_id, shown=shown, after=error.retry_after)
    elif isinstance(error, RateLimited):
        attempt_status = AttemptStatus.DEFERRED
        # If the provider named no time, the wait must grow with each failure, so this one is counted.
        failed = error.retry_after is None
        due_at = again_at
    else:
        if isinstance(error, Unsent):
            attempt_status = AttemptStatus.NOT_SENT
        # An error that concerns all logins does not count as a failure of this one.
        failed = error.scope not in _SHARED_SCOPES and not isinstance(error, AppMisconfigured)
        due_at = again_at
    return Settlement(
        provider_id=leased.provider_id,
        generation=leased.generation,
        attempt_id=attempt_id,
        attempt_status=attempt_status,
        error=error.kind,
        reason=error.reason,
        failed=failed,
        refresh_due_at=due_at,
        waits=due_at is not None,
        status=status,
        status_reason=reason if status else None,
        task_id=task_id,
    )


_OUTCOMES = {
    AttemptStatus.FAILED: Outcome.FAILED,
    AttemptStatus.UNKNOWN: Outcome.UNKNOWN,
    AttemptStatus.DEFERRED: Outcome.DEFERRED,
    AttemptStatus.NOT_SENT: Outcome.FAILED,
}


def result_of(settlement: Settlement, error: ProviderError) -> RefreshResult:
    """The result that is reported for a settled failure."""
    if settlement.status == ProviderStatus.NEEDS_REAUTH:
        return RefreshResult(Outcome.NEEDS_REAUTH, ReauthRequired(settlement.status_reason or error.reason))
    return RefreshResult(_OUTCOMES[AttemptStatus(settlement.attempt_status or AttemptStatus.FAILED)], error)
