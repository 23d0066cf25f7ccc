"""Decides before a call whether a leased token is presented, and makes the row to store from an answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from worker.crud.refresh.records import LeasedToken, NewToken, Settlement
from worker.errors import EncryptionError, ProviderError, RateLimited, Scope, Unsupported
from worker.integrations.kit.base import RefreshPolicy, TokenAnswer
from worker.models import new_id
from worker.process.clocks import elapsed
from worker.services.encryption import EncryptionService
from worker.services.refresh import due
from worker.services.refresh.results import Outcome, RefreshResult

if TYPE_CHECKING:
    from worker.integrations.kit.integration import Integration


@dataclass(slots=True)
class Call:
    """A refresh token that is about to be presented, for the first time or in a retry.

    Attributes:
        due_at: since when the refresh is due.
    """

    leased: LeasedToken
    refresh_token: str = field(repr=False)
    policy: RefreshPolicy
    due_at: datetime | None
    attempt_id: UUID = field(default_factory=new_id)

    def now(self) -> datetime:
        """The database's time; this machine's clock may be wrong."""
        return self.leased.leased_at + timedelta(seconds=elapsed() - self.leased.asked_at)


@dataclass(slots=True)
class Ended:
    """A call that has ended, and its outcome.

    Attributes:
        unsent: the request was certainly never sent.
    """

    call: Call
    outcome: NewToken | ProviderError
    unsent: bool = False


@dataclass(frozen=True, slots=True)
class NotSent:
    """Why nothing is sent, and the settlement that ends the lease."""

    settlement: Settlement
    result: RefreshResult


def plan(
    leased: LeasedToken,
    *,
    integrations: Mapping[str, Integration],
    encryption: EncryptionService,
    force: bool,
    stale_generation: int | None,
    manual: bool = False,
) -> Call | NotSent:
    """Decides whether the token is presented: it must be due or asked for, and its ciphertext must belong to it.

    After a failure nothing is sent until its wait is over, no matter who asks and how often. For a person who waits
    (`manual`) the wait does not count, unless the token was presented without a known outcome; an operator can ignore
    every wait (`force`).
    """
    integration = integrations.get(leased.provider_key)
    policy = integration.refresh_policy if integration else None
    if policy is None or leased.refresh_token is None:
        settlement = _settled(leased, keep_due=integration is None)
        return NotSent(settlement, RefreshResult(Outcome.UNSUPPORTED, Unsupported("no_refresh")))
    due_at = due.refresh_due_at(
        policy,
        provider_id=leased.provider_id,
        generation=leased.generation,
        issued_at=leased.issued_at,
        lifetime=leased.lifetime,
    )
    wanted = force or leased.unknowns > 0 or leased.generation == stale_generation
    if not wanted and (due_at is None or due_at > leased.leased_at):
        return NotSent(_settled(leased, refresh_due_at=due_at), RefreshResult(Outcome.FRESH))
    not_before = leased.not_before or leased.leased_at
    if not_before > leased.leased_at and not force and (leased.unknowns or not manual):
        waits = RateLimited("refresh_waits", scope=Scope.PROVIDER, retry_after=not_before - leased.leased_at)
        return NotSent(_settled(leased, refresh_due_at=not_before), RefreshResult(Outcome.DEFERRED, waits))
    try:
        value = encryption.unseal(
            leased.refresh_token,
            provider_id=leased.provider_id,
            kind="refresh",
            generation=leased.generation,
            key_id=leased.key_id,
        )
    except EncryptionError as error:
        return unreadable(leased, error)
    return Call(leased, value, policy, due_at)


def unreadable(leased: LeasedToken, error: EncryptionError) -> NotSent:
    """Sends nothing and keeps the token: the missing key may be configured again, or an operator may act."""
    failures = leased.refresh_failures + 1
    retry_at = due.retry_at(leased.leased_at, provider_id=leased.provider_id, failures=failures)
    return NotSent(_settled(leased, failed=True, refresh_due_at=retry_at), RefreshResult(Outcome.FAILED, error))


def _settled(
    leased: LeasedToken, *, refresh_due_at: datetime | None = None, keep_due: bool = False, failed: bool = False
) -> Settlement:
    return Settlement(
        provider_id=leased.provider_id,
        generation=leased.generation,
        refresh_due_at=refresh_due_at,
        keep_due=keep_due,
        failed=failed,
    )


def seal_answer(
    encryption: EncryptionService,
    policy: RefreshPolicy | None,
    answer: TokenAnswer,
    *,
    provider_id: UUID,
    generation: int,
    issued_at: datetime,
    kept_refresh_token: str | None = None,
    attempt_id: UUID | None = None,
    task_id: str | None = None,
    new_grant: bool = False,
) -> NewToken:
    """Makes the row to store from an answer: its tokens encrypted and bound to the generation after `generation`.

    Args:
        encryption: encrypts with its first key.
        policy: the integration's refresh policy.
        answer: answer of an exchange or a refresh.
        provider_id: the login.
        generation: the stored generation, which was presented; 0 before the first.
        issued_at: a time by the database's clock that is not later than when the provider issued the token.
        kept_refresh_token: stays in use when the answer has none.
        attempt_id: the attempt that it answers.
        task_id: for the audit log.
        new_grant: the answer is that of an exchange: the user has consented anew, and a first sync is due at once.
    """
    next_generation = generation + 1
    refresh_token = answer.refresh_token or kept_refresh_token
    lifetime = answer.lifetime
    seal = partial(encryption.seal, provider_id=provider_id, generation=next_generation)
    due_at = due.refresh_due_at(
        policy if refresh_token else None,
        provider_id=provider_id,
        generation=next_generation,
        issued_at=issued_at,
        lifetime=lifetime,
    )
    return NewToken(
        provider_id=provider_id,
        generation=generation,
        access_token=seal(answer.access_token, kind="access"),
        refresh_token=seal(refresh_token, kind="refresh") if refresh_token else None,
        key_id=encryption.key_id,
        issued_at=issued_at,
        lifetime_s=None if lifetime is None else max(1, int(lifetime.total_seconds())),
        scope=_storable(answer.scope),
        access_expires_at=None if lifetime is None else issued_at + lifetime,
        refresh_due_at=due_at,
        attempt_id=attempt_id,
        task_id=task_id,
        flags=answer.flags,
        new_grant=new_grant,
        grant_expires_at=answer.grant_expires_at if new_grant else None,
        external_id=_storable(answer.external_id) if new_grant else None,
        sync_due_at=issued_at if new_grant else None,
        action="linked" if new_grant else "token_refreshed",
        actor="user" if new_grant else "system",
    )


def unseal_answer(encryption: EncryptionService, token: NewToken) -> dict[str, str]:
    """The decrypted tokens, by kind (`access`, `refresh`), in a row that `seal_answer` made.

    Raises:
        EncryptionError: they do not belong to this row, or no configured key decrypts them.
    """
    return {
        kind: encryption.unseal(
            ciphertext,
            provider_id=token.provider_id,
            kind=kind,
            generation=token.generation + 1,
            key_id=token.key_id,
        )
        for kind, ciphertext in (("access", token.access_token), ("refresh", token.refresh_token))
        if ciphertext is not None
    }


def _storable(value: str | None) -> str | None:
    """The text in a form that Postgres can store: a bad character in it must not keep the token from being stored."""
    return None if value is None else value.replace("\x00", "").encode(errors="replace").decode()[:2000]
