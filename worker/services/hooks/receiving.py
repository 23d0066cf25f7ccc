"""Receives a provider's hook: verifies it, stores it once, and makes the work due that it asks for.

A hook is a hint: nothing of it is stored as data of a login. So a hook that is forged, doubled, late or lost can do no
harm: the work that it makes due asks the provider's API, and polling goes on without any hook.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from worker.crud import hooks
from worker.crud.hooks import Received
from worker.errors import HookRefused, NotFound, ProviderError, Unavailable
from worker.integrations.kit.hooks import Ask, Delivery, Hook
from worker.integrations.kit.integration import Integration
from worker.models.vocabulary import ProviderStatus
from worker.process.clocks import elapsed
from worker.process.logger import Logger
from worker.services.context import Context
from worker.telemetry import metrics

log = Logger(__name__)

PAUSE_SECONDS = 5.0
"""How long a sync waits after the hook that asks for it: several hooks about one change come within that time."""
_STORE_SECONDS = 5.0
"""Providers wait for an answer for about ten seconds. A hook that was not stored by then is sent again."""
_JITTER = 0.2
_BURST_SECONDS = 20.0
"""How long a sync waits at least after a hook that follows another: institutions allow a few calls a minute."""
_USUAL = ("accepted", "duplicate")


@dataclass(frozen=True, slots=True)
class Receipt:
    """The answer to a hook.

    Attributes:
        status: the HTTP status: 200, 401 (not from the provider) or 503 (try again).
        asks: what is due now; empty if nothing is.
        after_s: after how many seconds it is due.
    """

    status: int
    asks: frozenset[Ask] = frozenset()
    after_s: float = 0.0


async def receive(runtime: Context, provider_key: str, delivery: Delivery) -> Receipt:
    """Receives one hook.

    Raises:
        NotFound: no enabled integration with this key receives hooks.
    """
    integration = runtime.integrations.get(provider_key)
    if integration is None or integration.hooks is None:
        raise NotFound(f"no enabled integration {provider_key} receives hooks; nothing was changed")
    began = elapsed()
    receipt, word = await _received(runtime, integration, delivery)
    metrics.observe_hook(provider_key, receipt.status, word, elapsed() - began)
    return receipt


async def _received(runtime: Context, integration: Integration, delivery: Delivery) -> tuple[Receipt, str]:
    assert integration.hooks is not None  # noqa: S101 - asked for by `receive`
    try:
        hook = await integration.hooks.receive(delivery)
    except HookRefused as error:
        log.warning("hook_refused", integration=integration.key, reason=error.reason)
        return Receipt(401), error.reason
    except ProviderError as error:
        log.warning(
            "hook_not_verified", integration=integration.key, error=str(error), next="the provider sends it again"
        )
        return Receipt(503), "key_not_fetched"
    if not hook.is_ours:
        log.warning("hook_of_another_environment", integration=integration.key)
        return Receipt(200), "other_environment"
    asks = _possible(integration, hook)
    pause = PAUSE_SECONDS * (1 - _JITTER + 2 * _JITTER * random.random())  # noqa: S311 - jitter needs no secrecy
    try:
        store = partial(
            hooks.receive,
            provider_key=integration.key,
            hook=hook,
            asks=asks,
            body_sha256=bytes.fromhex(delivery.body_sha256),
            pause=timedelta(seconds=pause),
            burst=timedelta(seconds=max(_BURST_SECONDS, runtime.settings.sync_min_interval)),
            channels=runtime.settings.enabled_channels,
        )
        received = await runtime.db_within(_STORE_SECONDS, store)
    except Unavailable as error:
        log.warning(
            "hook_not_stored", integration=integration.key, error=str(error), next="the provider sends it again"
        )
        return Receipt(503), "postgres_away"
    word = _word(hook, received)
    due = asks if word in ("accepted", "late") else frozenset[Ask]()
    tell = log.debug if word in _USUAL else log.info  # each hook is a row of its own, and is counted
    tell("hook_received", integration=integration.key, kind=hook.kind, outcome=word, provider_id=_id(received))
    return Receipt(200, due, pause), word


def _possible(integration: Integration, hook: Hook) -> frozenset[Ask]:
    """What the hook asks for; where the state of a login cannot be asked for, a sync finds it out."""
    if Ask.CHECK in hook.asks and not integration.can_check:
        return frozenset({Ask.SYNC})
    return hook.asks


def _word(hook: Hook, received: Received) -> str:
    """What became of a genuine hook, in the word that metrics and logs use."""
    if not received.is_new:
        return "duplicate"
    if not hook.is_known:
        return "unknown_kind"
    if hook.login is not None and received.provider_id is None:
        return "unknown_login"
    if received.status not in (None, ProviderStatus.ACTIVE, ProviderStatus.NEEDS_REAUTH):
        return "inactive_login"
    return "late" if hook.is_late else "accepted"


def _id(received: Received) -> str | None:
    return str(received.provider_id) if received.provider_id else None
