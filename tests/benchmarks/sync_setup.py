"""What the sync benchmark runs on: a private durable Postgres, the sandbox, and a linked login."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from cryptography.fernet import Fernet
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.orm import Session

from tests.benchmarks.replay import Replay
from tests.factories import make_linked_provider, make_user
from tests.support.databases import Databases
from tests.support.sandbox import SandboxAdmin, SandboxProcess
from worker.crud.providers import get_provider
from worker.devstack import Devstack
from worker.integrations.kit.base import Caller, Page, SyncRequest
from worker.integrations.registry import build_integrations
from worker.models import new_id
from worker.runtime import Runtime
from worker.services.refresh.access_token import access_token
from worker.settings import Settings, load

PAGE = 500


@dataclass(slots=True)
class Bench:
    """Servers and addresses of one benchmark; feeds are read from `feed_url`, which replays the sandbox's answers."""

    database_url: str
    admin: SandboxAdmin
    sandbox_url: str
    feed_url: str
    admin_token: str
    home: Path

    def engine(self) -> Engine:
        return create_engine(self.database_url, connect_args={"options": "-c timezone=UTC"})

    def runtime(self) -> Runtime:
        """A worker's runtime whose integrations ask no quota: the sandbox has none."""
        settings = load(Settings)
        return Runtime(settings, integrations=build_integrations(("plaid", "schwab"), settings, gate=None))


@contextmanager
def bench(**postgres_settings: str) -> Iterator[Bench]:
    """Starts the servers, Postgres with these settings besides, and points this process's environment at them."""
    with ExitStack() as stack:
        home = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="dashtam-bench-", ignore_cleanup_errors=True))
        )
        home.chmod(0o755)
        tuned = {"max_wal_size": "4GB", "checkpoint_timeout": "30min", "autovacuum": "off"} | postgres_settings
        devstack = Devstack(home / "stack", durable=True, environ={}, postgres_settings=tuned)
        urls = stack.enter_context(devstack.session(erase=True))
        databases = Databases(urls.database_url)
        sandbox = stack.enter_context(SandboxProcess())
        feed_url = stack.enter_context(Replay(sandbox.base_url)).url
        database_url = databases.clone("bench")
        os.environ.update(
            DATABASE_URL=database_url,
            REDIS_URL=urls.redis_url,
            ENCRYPTION_KEYS=f"bench:{Fernet.generate_key().decode()}",
            HTTP_TOTAL_SECONDS="40",
            SYNC_BUDGET_SECONDS="3600",
            SYNC_MIN_INTERVAL="0",
            **sandbox.variables(feed_url),
        )
        with sandbox.admin() as admin:
            yield Bench(database_url, admin, sandbox.base_url, feed_url, sandbox.admin_token, home)


def link(runtime: Runtime, admin: SandboxAdmin, profile: str, login: str) -> UUID:
    """An active provider for a sandbox login."""
    minted = admin.mint(login)[0]
    policy = runtime.integrations[profile].refresh_policy
    with runtime.transaction() as session:
        return make_linked_provider(
            session,
            runtime.encryption,
            user=make_user(session, email=f"{login}-{new_id()}@example.com"),
            access_token=minted.access_token,
            refresh_token=minted.refresh_token,
            lifetime=policy.default_lifetime if policy else None,
            provider_key=profile,
        ).id


async def read_feeds(runtime: Runtime, provider_id: UUID) -> AsyncIterator[Page]:
    """All pages of a login, fetched and read but not stored."""
    integration = runtime.integrations[await runtime.db(_provider_key, provider_id=provider_id)]
    caller = Caller(provider_id)
    token = await access_token(runtime, provider_id, caller=caller)
    request = SyncRequest(caller=caller, access_token=token.value, cursors={}, now=await runtime.now())
    async for page in integration.pages(request):
        yield page


async def read_through(runtime: Runtime, provider_id: UUID) -> int:
    """Fetches all pages of a login and forgets them; how many there were."""
    return len([page.feed async for page in read_feeds(runtime, provider_id)])


def _provider_key(session: Session, *, provider_id: UUID) -> str:
    return get_provider(session, provider_id).provider_key


def wal_position(engine: Engine) -> int:
    """Bytes of WAL written since the beginning."""
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT pg_current_wal_insert_lsn() - '0/0'")).scalar_one())


def settle(engine: Engine) -> None:
    """Nothing left over from the pass before; no checkpoint falls into a pass (`tuned`)."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE transactions"))


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds on the clock and of this process's CPU."""
    cpu, started = time.process_time(), time.perf_counter()
    work()
    return time.perf_counter() - started, time.process_time() - cpu


def median(values: list[float]) -> float:
    return statistics.median(values)
