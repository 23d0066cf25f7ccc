"""Health checks: each one checks one thing, and says what to do when it is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr

from worker.crud import health, heartbeats, schema
from worker.errors import ConfigurationError, DashtamError, Unavailable
from worker.integrations.registry import REGISTRY, faults
from worker.process.redis_names import QUEUES
from worker.services import host, keys, limits, mending
from worker.services.context import Context
from worker.services.findings import Finding
from worker.services.fleet import held
from worker.services.fleet.looking import beat_late
from worker.services.hooks import orphans
from worker.services.outbox import backlog
from worker.services.transport import Transport
from worker.settings import EnvironmentSettings, get_settings, load

_SKEW_MAX = timedelta(seconds=2)
_BACKLOG_MAX = 1000
_PING_SECONDS = 0.7
_READY_SECONDS = 3.0


def configuration() -> Finding:
    """Checks that the settings are complete and safe. Must succeed before any other check can run."""
    try:
        get_settings()
    except ConfigurationError as error:
        return Finding("configuration", False, str(error), "set it in the environment or in .env; see .env.example")
    return Finding("configuration", True, "complete and safe")


async def check(
    runtime: Context, name: str, transport: Transport, failed: Container[str] = frozenset[str]()
) -> list[Finding]:
    """Runs one of `CHECKS`. An error in it becomes a finding. A check that depends on one of `failed` is skipped."""
    if cause := next((other for other in _NEEDS.get(name, ()) if other in failed), None):
        return [Finding(name, False, f"not looked at, because of {cause}", skipped=True)]
    try:
        found = await _CHECKS[name](runtime, transport)
    except Unavailable as error:
        mend = mending.start_server(error.server, runtime.settings, silent=error.silent) if error.server else _LATER
        return [Finding(name, False, str(error), mend)]
    except DashtamError as error:
        return [Finding(name, False, str(error), _MENDS.get(name, "see docs/operations.md"))]
    return [found] if isinstance(found, Finding) else found


async def troubles(
    runtime: Context, transport: Transport, *, without: Container[str] = frozenset[str]()
) -> list[Finding]:
    """Problems that stop work, the root cause first: servers, processes, keys, integrations, single logins."""
    found: list[Finding] = []
    failed: set[str] = set()
    for name in _CAUSES:
        if name in without:
            continue
        for finding in await check(runtime, name, transport, failed):
            if not finding.ok:
                failed.add(name)
            if finding.is_trouble:
                found.append(finding)
    return found


async def readiness(runtime: Context, transport: Transport) -> dict[str, str]:
    """What is wrong with Postgres, Redis and RabbitMQ, or "" when nothing is. Each has a few seconds to answer."""

    async def postgres() -> None:
        await runtime.db_within(_READY_SECONDS, health.server_version)

    def ping() -> None:
        with transport.impatient_redis():
            pass

    async def told(asked: Awaitable[Any]) -> str:
        try:
            await asked
        except (ConfigurationError, Unavailable) as error:
            return str(error)
        return ""

    questions: dict[str, Awaitable[Any]] = {"postgres": postgres(), "redis": asyncio.to_thread(ping)}
    if transport.other_broker() is not None:
        questions["rabbitmq"] = asyncio.to_thread(transport.queue_lengths)
    return dict(zip(questions, await asyncio.gather(*map(told, questions.values())), strict=True))


def effective() -> dict[str, Any]:
    """The effective value of every setting; for secrets only whether they are set.

    Raises:
        ConfigurationError: the configuration is incomplete or unsafe.
    """
    settings = get_settings()
    found = _variables(settings)
    for key in settings.enabled_integrations:
        if key in REGISTRY:
            found |= _variables(load(REGISTRY[key].settings_class))
    return found


def _variables(settings: EnvironmentSettings) -> dict[str, Any]:
    prefix = settings.model_config.get("env_prefix") or ""
    found: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        variable = str(field.validation_alias or f"{prefix}{name}").upper()
        value = getattr(settings, name)
        found[variable] = "set, not shown" if isinstance(value, SecretStr) else value
    return found


async def _integrations(runtime: Context, transport: Transport) -> Finding:
    return Finding("integrations", True, ", ".join(runtime.integrations) or "none enabled")


async def _plug_ins(runtime: Context, transport: Transport) -> Finding:
    broken = "; ".join(f"{fault.key} of {fault.package}: {fault.reason}" for fault in faults())
    if not broken:
        return Finding("plug-ins", True, "every integration that is installed can be used")
    return Finding("plug-ins", False, broken, "update or uninstall that package; all else goes on without it")


async def _postgres(runtime: Context, transport: Transport) -> Finding:
    version = await runtime.db(health.server_version)
    if not await runtime.db(health.takes_writes):
        return Finding("postgres", False, "takes no writes: it is a standby; pending work is kept", mending.PROMOTE)
    await limits.require_in_effect(runtime)
    return Finding("postgres", True, f"answers, version {version}")


async def _schema(runtime: Context, transport: Transport) -> Finding:
    now, wanted = await runtime.db(schema.versions)
    if now == wanted:
        return Finding("schema", True, f"at {now}")
    if now is not None and now > wanted:
        return Finding(
            "schema", False, f"at {now}, which is newer than this code's {wanted}", "install the newer release"
        )
    return Finding("schema", False, f"at {now or 'nothing'}, this code wants {wanted}", mending.MIGRATE)


async def _privileges(runtime: Context, transport: Transport) -> Finding:
    role, superuser, alters_audit = await runtime.db(health.role)
    if not superuser and not alters_audit:
        return Finding("database role", True, f"{role} may not alter the audit log")
    if runtime.settings.environment != "production":
        return Finding("database role", True, f"{role} may do more than it needs; fine outside production")
    return Finding(
        "database role", False, f"{role} may alter the audit log", "run: dashtam database roles; use its app"
    )


async def _standbys(runtime: Context, transport: Transport) -> Finding:
    found = await runtime.db(health.replication)
    if not found.standbys:
        return Finding("standbys", True, "none, so that no failover can lose what was committed")
    if found.synchronous:
        return Finding("standbys", True, f"{found.standbys}; each commit waits for one of them")
    what = f"{found.standbys}, and no commit waits for any: a failover would lose tokens that were just rotated"
    if runtime.settings.environment != "production":
        return Finding("standbys", True, f"{what}; fine outside production")
    return Finding(
        "standbys", False, what, "as superuser: ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)', then reload"
    )


async def _clock(runtime: Context, transport: Transport) -> Finding:
    before = datetime.now(UTC)
    there = await runtime.db(health.clock)
    after = datetime.now(UTC)
    skew = max(there - after, before - there, timedelta())
    if skew <= _SKEW_MAX:
        return Finding("clock", True, "agrees with Postgres")
    apart = f"{skew.total_seconds():.0f} s apart from Postgres"
    return Finding("clock", False, apart, "set the clocks of both machines by NTP: timedatectl set-ntp true")


async def _keys(runtime: Context, transport: Transport) -> Finding:
    await keys.require_configured(runtime)
    return Finding("encryption keys", True, f"every key in use is there; {keys.configured(runtime)[0]} writes")


async def _redis(runtime: Context, transport: Transport) -> Finding:
    def ask() -> str:
        with transport.impatient_redis() as client:
            return str(client.info("memory").get("maxmemory_policy", "noeviction"))

    policy = await asyncio.to_thread(ask)  # a Redis that does not answer must not hold up the HTTP API
    if policy == "noeviction":
        return Finding("redis", True, "reachable; eviction off")
    return Finding(
        "redis",
        False,
        f"may evict messages ({policy})",
        "switch that off: redis-cli CONFIG SET maxmemory-policy noeviction",
    )


async def _broker(runtime: Context, transport: Transport) -> list[Finding]:
    broker = transport.other_broker()
    if broker is None:
        return []  # then it is the Redis that was just asked
    server = await asyncio.to_thread(broker.require_queues)
    return [Finding("broker", True, f"{server} answers and has the queues")]


async def _queues(runtime: Context, transport: Transport) -> Finding:
    waiting = (await asyncio.to_thread(transport.queue_lengths)).waiting
    words = ", ".join(f"{queue} {count}" for queue, count in waiting.items())
    if max(waiting.values()) <= _BACKLOG_MAX:
        return Finding("queues", True, words)
    return Finding("queues", False, words, "start more workers for the long queue, or see why they do not end")


async def _workers(runtime: Context, transport: Transport) -> Finding:
    names = await asyncio.to_thread(transport.ping_workers, seconds=_PING_SECONDS)
    if not names:
        found = "none answers, so nothing is refreshed or synced; pending work is kept"
        return Finding("workers", False, found, mending.start_workers(runtime.settings))
    missing = [queue for queue in QUEUES if not any(name.startswith(queue) for name in names)]
    if not missing:
        return Finding("workers", True, ", ".join(names))
    if not all(name.startswith(tuple(f"{queue}@" for queue in QUEUES)) for name in names):
        # Workers may have any names; then it is unknown which queue has no worker.
        return Finding("workers", True, f"{', '.join(names)}; none is named after {', '.join(missing)}")
    found = f"none of the queue {', '.join(missing)} answers; its pending work is kept"
    return Finding("workers", False, found, mending.start_workers(runtime.settings, missing))


async def _beat(runtime: Context, transport: Transport) -> Finding:
    last = max((await runtime.db(heartbeats.read_heartbeats)).values(), default=None)
    if last is not None and await runtime.now() - last <= beat_late(runtime.settings.tick_scale):
        return Finding("beat", True, "ticks")
    found = (
        "no tick was ever worked off" if last is None else f"the last tick was worked off at {last:%Y-%m-%d %H:%M:%S}Z"
    )
    found = f"{found}, so nothing new is begun; pending work is kept"
    return Finding("beat", False, found, mending.start_beat(runtime.settings))


async def _held(runtime: Context, transport: Transport) -> list[Finding]:
    found = await runtime.db(
        held.in_the_fleet,
        enabled=runtime.settings.enabled_integrations,
        now=await runtime.now(),
        opens_after=held.BreakerLimits.of(runtime.settings),
    )
    return found or [Finding("logins", True, "none is paused, over a quota, without an answer, or needs its user")]


_CHECKS: dict[str, Callable[[Context, Transport], Awaitable[Finding | list[Finding]]]] = {
    "postgres": _postgres,
    "schema": _schema,
    "clock": _clock,
    "redis": _redis,
    "broker": _broker,
    "workers": _workers,
    "beat": _beat,
    "encryption keys": _keys,
    "integrations": _integrations,
    "plug-ins": _plug_ins,
    "logins": _held,
    "hooks": orphans.finding,
    "outbox": backlog.finding,
    "database role": _privileges,
    "standbys": _standbys,
    "queues": _queues,
    "disk": host.disk,
    "spool": host.spool,
}

CHECKS = tuple(_CHECKS)
"""In this order: when a check fails, later ones may fail for the same reason."""

_CAUSES = ("postgres", "schema", "clock", "redis", "broker", "workers", "beat", "encryption keys", "logins")

_NEEDS = {
    "schema": ("postgres",),
    "clock": ("postgres",),
    "workers": ("redis", "broker"),
    "beat": ("postgres", "schema", "redis", "broker", "workers"),
    "encryption keys": ("postgres", "schema"),
    "logins": ("postgres", "schema"),
    "hooks": ("postgres", "schema"),
    "outbox": ("postgres", "schema"),
    "database role": ("postgres",),
    "standbys": ("postgres",),
    "queues": ("redis", "broker"),
}
"""For each check, the checks that must succeed before it; otherwise its result would be wrong."""

_LATER = "try again: dashtam doctor"
_MENDS = {
    "postgres": mending.USE_POOLER,
    "broker": "correct BROKER_URL or BROKER_QUEUE_TYPE, or the RabbitMQ; then: dashtam doctor",
    "integrations": "set the variables it names, as docs/operations.md says; then: dashtam doctor",
    "encryption keys": "put the missing key back into ENCRYPTION_KEYS, behind the first; then: dashtam keys status",
}
