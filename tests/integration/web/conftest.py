"""One application for each module of tests, on an empty database; a test stores its rows under users of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from tests.factories import make_linked_provider, make_user
from tests.support import databases as dbs
from tests.support.databases import Databases
from tests.support.fixtures import NO_WORKER, redis_database
from tests.support.sandbox import SandboxProcess
from worker.crud.database import make_engine
from worker.devstack import Urls
from worker.models import Provider, User
from worker.models.vocabulary import KeyScope
from worker.runtime import Runtime, use_runtime
from worker.services.access import keys
from worker.settings import get_settings
from worker.tasks import send as broker
from worker.web.application import create_app

HOST = "http://127.0.0.1:8000"
APP = "https://app.example.org"
"""The app that asks for links, and to which browsers go back."""


@pytest.fixture(scope="session")
def web_database(databases: Databases) -> Iterator[Engine]:
    """One database for all modules, emptied after each: to copy one for each takes many times as long."""
    engine = make_engine(databases.clone("web"), connections=1)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def web_runtime(web_database: Engine, servers: Urls, sandbox_process: SandboxProcess) -> Iterator[Runtime]:
    """A database that is empty when the module begins, and the enabled integrations talking to the sandbox."""
    with pytest.MonkeyPatch.context() as environment:
        variables = sandbox_process.variables() | RATES | {"LINK_RETURN_ORIGINS": f"{APP}, http://127.0.0.1:3000"}
        variables["DATABASE_URL"] = web_database.url.render_as_string(hide_password=False)
        variables["REDIS_URL"] = redis_database(servers, NO_WORKER)
        for name, value in variables.items():
            environment.setenv(name, value)
        get_settings.cache_clear()
        runtime = Runtime(get_settings())
        with use_runtime(runtime):
            yield runtime
        runtime.close()
        dbs.empty(web_database)
    get_settings.cache_clear()


RATES = {"WEB_KEY_RATE": "100000/second", "WEB_ADDRESS_RATE": "100000/second"}
"""Tests ask often; those of the rates have an application of their own."""


@dataclass
class Sent:
    """Takes the place of the broker: what would have been sent."""

    tasks: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def __call__(self, task: str, *args: Any, **kwargs: Any) -> str:
        self.tasks.append((task, args, kwargs))
        return f"message-{len(self.tasks)}"


@pytest.fixture(scope="module")
def sent() -> Sent:
    """What the application has sent to the workers."""
    return Sent()


@pytest.fixture(scope="module")
def client(web_runtime: Runtime, sent: Sent) -> Iterator[TestClient]:
    """Asks the application, in this process."""
    app = create_app(web_runtime, send=sent, transport=broker)
    with TestClient(app, base_url=HOST) as asking:
        yield asking


@dataclass(frozen=True)
class Person:
    """A user and the header of a key of theirs with every scope."""

    user_id: UUID
    headers: dict[str, str]


def make_key(runtime: Runtime, user_id: UUID | None, *scopes: str) -> dict[str, str]:
    """The header of a new key; with every scope, if none is named."""
    from datetime import timedelta

    made = runtime_run(
        runtime,
        keys.create(
            runtime,
            name="tests",
            scopes=scopes or tuple(KeyScope),
            user_id=user_id,
            lifetime=timedelta(hours=1),
            actor="operator:tests",
        ),
    )
    return {"Authorization": f"Bearer {made.key}"}


def runtime_run(runtime: Runtime, work: Any) -> Any:
    """Runs a service beside the application, on a loop of its own. In browser tests this thread has a loop already."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def make_person(runtime: Runtime) -> Person:
    """A new user with a key."""
    with runtime.transaction() as session:
        user_id = make_user(session).id
    return Person(user_id, make_key(runtime, user_id))


@pytest.fixture(scope="module")
def superuser_token_headers(web_runtime: Runtime) -> dict[str, str]:
    """The header of an operator's key with every scope."""
    return make_key(web_runtime, None)


@pytest.fixture(scope="module")
def person(web_runtime: Runtime) -> Person:
    """A user of the module."""
    return make_person(web_runtime)


@pytest.fixture(scope="module")
def stranger(web_runtime: Runtime) -> Person:
    """Another one."""
    return make_person(web_runtime)


@pytest.fixture(scope="module")
def normal_user_token_headers(person: Person) -> dict[str, str]:
    """The header of a user's key with every scope."""
    return person.headers


@pytest.fixture
def rows(web_runtime: Runtime) -> Iterator[Session]:
    """A session that commits what a test sets up at its `commit()`."""
    with Session(web_runtime.engine, expire_on_commit=False) as session:
        yield session


@contextmanager
def quiet_login(runtime: Runtime, rows: Session, person: Person, *, alias: str) -> Iterator[Provider]:
    """An active login of a person of which nothing is due for hours; removed at the end."""
    later = datetime.now(UTC) + timedelta(hours=3)
    user = rows.get_one(User, person.user_id)
    due = {"refresh_due_at": later, "sync_due_at": later}
    made = make_linked_provider(rows, runtime.encryption, user=user, alias=alias, **due)
    rows.commit()
    yield made
    rows.expire_all()
    rows.delete(made)
    rows.commit()


def tick(rows: Session) -> None:
    """Beat has just ticked."""
    rows.execute(
        text("INSERT INTO heartbeats (name, at) VALUES ('t', now()) ON CONFLICT (name) DO UPDATE SET at = now()")
    )
    rows.commit()
