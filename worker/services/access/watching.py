"""What the status page shows to the owner of an API key: an operator sees the fleet, a user their own logins."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from worker.crud.database import OpenTransaction
from worker.crud.fleet import breakers, history, overview, stored, watching
from worker.crud.fleet.watching import LoginsWanted
from worker.models.fleet import Attempt, Failure, IntegrationRow, ProviderRow, Run, Stored
from worker.models.vocabulary import ProviderStatus
from worker.services.access.acting import explain
from worker.services.access.keys import Principal
from worker.services.access.logins import require_own
from worker.services.context import Context
from worker.services.explain import Explanation
from worker.services.findings import Finding
from worker.services.fleet import details, held, looking, lookup
from worker.services.fleet.glance import Lookout
from worker.services.transport import Transport

_FAILURES = 10
_TIMELINE = 30
_MOST_TROUBLES = 100


@dataclass(frozen=True, slots=True)
class Overview:
    """The first screen.

    Attributes:
        troubles: what keeps work from being done, the root cause first.
        must_act: how many matters wait for `operator` and for `user`.
        fleet: counts over the logins that the key sees, as `dashtam status --json` names them.
        status: queues, processes and ticks; None for a user's key.
        integrations: those that the key sees logins of, or may see.
        failures: the newest tasks that will not run again by themselves; empty for a user's key.
    """

    at: datetime
    troubles: list[Finding]
    must_act: dict[str, int]
    fleet: dict[str, Any]
    status: dict[str, Any] | None
    integrations: list[IntegrationRow]
    failures: list[Failure]

    @property
    def is_down(self) -> bool:
        """Whether something that all work needs does not work."""
        return any(not trouble.ok for trouble in self.troubles)

    @property
    def late(self) -> int:
        """How many refreshes and syncs have been due for longer than a minute."""
        return int(self.fleet.get("refresh_late", 0)) + int(self.fleet.get("sync_late", 0))

    @property
    def is_well(self) -> bool:
        """Whether nobody has to know anything."""
        return not self.troubles and not self.late and not self.failures


@dataclass(frozen=True, slots=True)
class LoginsPage:
    """One page of logins, newest first. `next_before` is the position of the next page; None on the last one."""

    rows: list[ProviderRow]
    next_before: UUID | None


@dataclass(frozen=True, slots=True)
class LoginView:
    """One login: what is stored of it, its explanation, and what happened to it, newest first."""

    at: datetime
    row: ProviderRow
    stored: Stored
    told: Explanation
    timeline: list[Attempt | Run]


async def first_screen(runtime: Context, principal: Principal, lookout: Lookout) -> Overview:
    """What the first screen shows.

    Raises:
        Unavailable: Postgres is out of reach.
    """
    if principal.user_id is not None:
        return await _of_user(runtime, principal.user_id)
    seen = await lookout.look()
    integrations = [row for row in await looking.integrations(runtime) if row.enabled]
    failures = await details.failures(runtime, resolved=False, limit=_FAILURES)
    fleet = seen.status["providers"]
    # One of the troubles tells of all logins that need their users.
    by_operator = max(0, len(seen.troubles) - bool(fleet["needs_reauth"])) + bool(fleet["failures"])
    acting = {"operator": by_operator, "user": fleet["needs_reauth"]}
    return Overview(seen.at, seen.troubles, acting, fleet, seen.status, integrations, failures)


async def _of_user(runtime: Context, user_id: UUID) -> Overview:
    now = await runtime.now()

    def read(session: OpenTransaction) -> Overview:
        keys = watching.keys_of(session, user_id=user_id)
        states = breakers.read_states(session)
        opens_after = held.BreakerLimits.of(runtime.settings)
        of_all = (held.of_integration(key, states.get(key), now, opens_after=opens_after) for key in keys)
        troubles = [_without_command(one) for found in of_all for one in found]
        wanted = LoginsWanted(user_id, status=ProviderStatus.NEEDS_REAUTH, limit=_MOST_TROUBLES)
        troubles += filter(None, map(held.of_login, watching.logins(session, wanted=wanted)))
        counts = watching.statuses(session, user_id=user_id)
        fleet = {status.value: counts.get(status, 0) for status in ProviderStatus}
        enabled = runtime.settings.enabled_integrations
        rows = [looking.integration(key, states.get(key), enabled=True) for key in keys if key in enabled]
        return Overview(now, troubles, {"operator": 0, "user": fleet["needs_reauth"]}, fleet, None, rows, [])

    return await runtime.db(read)


def _without_command(finding: Finding) -> Finding:
    """For users: an operator's command would not help them."""
    return replace(finding, mend="nothing; the operator of this service knows of it")


async def logins(
    runtime: Context, principal: Principal, *, text: str, status: str, provider_key: str, before: UUID | None
) -> LoginsPage:
    """One page of the logins that the key sees; see `LoginsWanted`. "" stands for any status or integration."""
    wanted = LoginsWanted(principal.user_id, text.strip(), status or None, provider_key or None, before)
    first, last = lookup.id_range(wanted.text)
    found = await runtime.db(watching.logins, wanted=wanted, first=first, last=last)
    rows = found[: wanted.limit]
    return LoginsPage(rows, rows[-1].id if len(found) > len(rows) else None)


async def login(runtime: Context, principal: Principal, provider_id: UUID, *, transport: Transport) -> LoginView:
    """One login. Raises what `logins.own` raises."""
    told = await explain(runtime, principal, provider_id, transport=transport)
    now = await runtime.now()

    def read(session: OpenTransaction) -> LoginView:
        require_own(session, principal, provider_id)
        (row,) = overview.list_providers(session, limit=1, ids=[provider_id])
        attempts = history.attempts(session, provider_ids=[provider_id], limit=_TIMELINE)
        runs = history.runs(session, provider_ids=[provider_id], limit=_TIMELINE)
        happened: list[Attempt | Run] = [*attempts, *runs]
        happened.sort(key=lambda one: (one.started_at, one.id), reverse=True)
        rows = stored.counts(session, provider_ids=[provider_id])[provider_id]
        return LoginView(now, row, rows, told, happened[:_TIMELINE])

    return await runtime.db(read)
