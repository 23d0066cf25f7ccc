"""The checks of `dashtam doctor`: each looks at one thing, and says what to do when it is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from worker.cli.send import impatient_redis, ping_workers
from worker.cli.status import QUEUES
from worker.crud import health, heartbeats, schema
from worker.errors import ConfigurationError, DashtamError
from worker.integrations.registry import faults
from worker.runtime import Runtime, get_runtime
from worker.services import keys
from worker.services.explain import BEAT_LATE
from worker.services.refresh import journal
from worker.settings import get_settings

_SKEW_MAX = timedelta(seconds=2)
_BACKLOG_MAX = 1000
_FREE_BYTES_MIN = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        mend: what to do; empty when all is well.
    """

    check: str
    ok: bool
    found: str
    mend: str = ""


def run_checks() -> Iterator[Finding]:
    """All checks, in an order in which the first failure explains those after it."""
    try:
        get_settings()
    except ConfigurationError as error:
        yield Finding("configuration", False, str(error), "set it in the environment or in .env; see .env.example")
        return
    yield Finding("configuration", True, "complete and safe")
    runtime = get_runtime()
    for name, check in _CHECKS:
        try:
            yield check(runtime)
        except DashtamError as error:
            yield Finding(name, False, str(error), _MENDS.get(name, "see docs/operations.md"))


def _integrations(runtime: Runtime) -> Finding:
    return Finding("integrations", True, ", ".join(runtime.integrations) or "none enabled")


def _plug_ins(runtime: Runtime) -> Finding:
    broken = "; ".join(f"{fault.key} of {fault.package}: {fault.reason}" for fault in faults())
    if not broken:
        return Finding("plug-ins", True, "every integration that is installed can be used")
    return Finding("plug-ins", False, broken, "update or uninstall that package; all else goes on without it")


def _postgres(runtime: Runtime) -> Finding:
    with runtime.transaction() as session:
        version = health.server_version(session)
    return Finding("postgres", True, f"answers, version {version}")


def _schema(runtime: Runtime) -> Finding:
    with runtime.transaction() as session:
        now, wanted = schema.versions(session)
    if now == wanted:
        return Finding("schema", True, f"at {now}")
    return Finding("schema", False, f"at {now or 'nothing'}, this code wants {wanted}", "run: dashtam migrate")


def _privileges(runtime: Runtime) -> Finding:
    with runtime.transaction() as session:
        role, superuser, alters_audit = health.role(session)
    if not superuser and not alters_audit:
        return Finding("database role", True, f"{role} may not alter the audit log")
    if runtime.settings.environment != "production":
        return Finding("database role", True, f"{role} may do more than it needs; fine outside production")
    return Finding(
        "database role", False, f"{role} may alter the audit log", "run: dashtam database roles; use its app"
    )


def _standbys(runtime: Runtime) -> Finding:
    with runtime.transaction() as session:
        found = health.replication(session)
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


def _clock(runtime: Runtime) -> Finding:
    before = datetime.now(UTC)
    with runtime.transaction() as session:
        there = health.clock(session)
    after = datetime.now(UTC)
    skew = max(there - after, before - there, timedelta())
    if skew <= _SKEW_MAX:
        return Finding("clock", True, "agrees with Postgres")
    return Finding("clock", False, f"{skew.total_seconds():.0f} s apart from Postgres", "synchronise both clocks (NTP)")


def _keys(runtime: Runtime) -> Finding:
    runtime.run(keys.require_configured(runtime))
    return Finding("encryption keys", True, f"every key in use is there; {runtime.encryption.key_id} writes")


def _redis(runtime: Runtime) -> Finding:
    with impatient_redis() as client:
        policy = client.info("memory").get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return Finding("redis", True, "answers, and evicts nothing")
    return Finding("redis", False, f"may evict messages ({policy})", "set maxmemory-policy noeviction")


def _queues(runtime: Runtime) -> Finding:
    with impatient_redis() as client:
        waiting = {queue: int(client.llen(queue)) for queue in QUEUES}
    words = ", ".join(f"{queue} {count}" for queue, count in waiting.items())
    if max(waiting.values()) <= _BACKLOG_MAX:
        return Finding("queues", True, words)
    return Finding("queues", False, words, "start more workers for the long queue, or see why they do not end")


def _workers(runtime: Runtime) -> Finding:
    names = ping_workers(seconds=0.7)
    missing = [queue for queue in QUEUES if not any(name.startswith(queue) for name in names)]
    if names and not missing:
        return Finding("workers", True, ", ".join(names))
    if names:
        # Workers may be named as one likes; only an empty answer is wrong for certain.
        return Finding("workers", True, f"{', '.join(names)}; none is named after {', '.join(missing)}")
    return Finding("workers", False, "none answers", "start a worker for each queue, or see its log")


def _beat(runtime: Runtime) -> Finding:
    with runtime.transaction() as session:
        last = max(heartbeats.read_heartbeats(session).values(), default=None)
    if last is not None and datetime.now(UTC) - last <= BEAT_LATE:
        return Finding("beat", True, "ticks")
    found = (
        "no tick was ever worked off" if last is None else f"the last tick was worked off at {last:%Y-%m-%d %H:%M:%S}Z"
    )
    return Finding("beat", False, found, "start beat and the workers, or see their logs")


def _disk(runtime: Runtime) -> Finding:
    home = runtime.settings.home.absolute()
    while not home.exists():
        home = home.parent
    free = shutil.disk_usage(home).free
    if free >= _FREE_BYTES_MIN:
        return Finding("disk", True, f"{free / 1e9:.0f} GB free under the home")
    return Finding("disk", False, f"{free / 1e9:.1f} GB free under the home", "make room: the token spool needs it")


def _spool(runtime: Runtime) -> Finding:
    waiting = list(journal.spool_directory(runtime).glob(f"*{journal.UNREADABLE}"))
    if not waiting:
        return Finding("spool", True, "every file can be read")
    file = waiting[0]
    mend = f"make it readable for the worker, then: mv {file} {file.with_suffix('.json')}"
    return Finding("spool", False, f"{len(waiting)} files with token answers cannot be read, {file.name} first", mend)


_CHECKS: tuple[tuple[str, Callable[[Runtime], Finding]], ...] = (
    ("integrations", _integrations),
    ("plug-ins", _plug_ins),
    ("postgres", _postgres),
    ("schema", _schema),
    ("database role", _privileges),
    ("standbys", _standbys),
    ("clock", _clock),
    ("redis", _redis),
    ("encryption keys", _keys),
    ("queues", _queues),
    ("workers", _workers),
    ("beat", _beat),
    ("disk", _disk),
    ("spool", _spool),
)

_MENDS = {
    "integrations": "set the variables it names; see docs/operations.md",
    "postgres": "start Postgres, or correct DATABASE_URL",
    "schema": "run: dashtam migrate",
    "standbys": "start Postgres, or correct DATABASE_URL",
    "clock": "start Postgres, or correct DATABASE_URL",
    "redis": "start Redis, or correct REDIS_URL",
    "encryption keys": "put the missing key back into ENCRYPTION_KEYS",
    "queues": "start Redis, or correct REDIS_URL",
    "workers": "start Redis, or correct REDIS_URL",
    "beat": "run: dashtam migrate",
}
