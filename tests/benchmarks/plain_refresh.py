"""What `bench_refresh` compares with: one task per provider, as it is usually written, and written well.

Both read the row, decrypt, call the provider, encrypt and store with the same key service, engine, HTTP library and
fence by generation as the product; neither has leases, attempts, a journal or an audit log to pay for. Celery runs them
with the product's broker settings.

(a) `client_per_task`: prefork, an HTTP client opened for each task.
(b) `shared_client`: threads, one HTTP client for the process.
"""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import httpx
from celery import Celery
from sqlalchemy import Engine, create_engine, text

from worker.services.encryption import EncryptionService
from worker.settings import get_settings
from worker.settings.celery import celery_settings

app = Celery("plain")
app.conf.update({**celery_settings(get_settings()), "include": (), "beat_schedule": {}, "task_routes": {}})
app.conf.task_default_queue = "plain"

_HEADERS = {
    "authorization": "Basic " + base64.b64encode(b"sandbox-app:sandbox-secret").decode(),
    "content-type": "application/x-www-form-urlencoded",
}


@cache
def _engine() -> Engine:
    url = get_settings().database_url.get_secret_value()
    return create_engine(url, pool_size=int(os.environ.get("PLAIN_CONNECTIONS", "2")), max_overflow=0)


@cache
def _keys() -> EncryptionService:
    return EncryptionService()


@cache
def _client() -> httpx.Client:
    return httpx.Client(timeout=20, limits=httpx.Limits(max_connections=64, max_keepalive_connections=64))


@app.task(name="plain.client_per_task")
def client_per_task(provider_id: str) -> None:
    """(a)"""
    with httpx.Client(timeout=20) as client:
        _refresh(client, UUID(provider_id))


@app.task(name="plain.shared_client")
def shared_client(provider_id: str) -> None:
    """(b)"""
    _refresh(_client(), UUID(provider_id))


_READ = text("SELECT refresh_token, key_id, generation FROM provider_tokens WHERE provider_id = :id")
_STORE = text(
    "UPDATE provider_tokens SET access_token = :access, refresh_token = :refresh, key_id = :key_id,"
    " generation = generation + 1, issued_at = :now WHERE provider_id = :id AND generation = :generation"
)
_SCHEDULE = text(
    "UPDATE providers SET access_expires_at = :expires_at, refresh_due_at = :due_at, refreshed_at = :now,"
    " refresh_failures = 0 WHERE id = :id"
)


def _refresh(client: httpx.Client, provider_id: UUID) -> None:
    keys = _keys()
    with _engine().connect() as connection:
        row = connection.execute(_READ, {"id": provider_id}).one()
        connection.rollback()
    bound: dict[str, Any] = {"provider_id": provider_id}
    token = keys.unseal(row.refresh_token, kind="refresh", generation=row.generation, key_id=row.key_id, **bound)
    answer = client.post(
        os.environ["SCHWAB_BASE_URL"] + "/v1/oauth/token",
        headers=_HEADERS,
        data={"grant_type": "refresh_token", "refresh_token": token},
    )
    answer.raise_for_status()
    given = answer.json()
    now = datetime.now(UTC)
    expires_at = now + timedelta(seconds=given["expires_in"])
    bound["generation"] = row.generation + 1
    with _engine().begin() as connection:
        connection.execute(
            _STORE,
            {
                "id": provider_id,
                "generation": row.generation,
                "access": keys.seal(given["access_token"], kind="access", **bound),
                "refresh": keys.seal(given["refresh_token"], kind="refresh", **bound),
                "key_id": keys.key_id,
                "now": now,
            },
        )
        due_at = expires_at - timedelta(minutes=6)
        connection.execute(_SCHEDULE, {"id": provider_id, "expires_at": expires_at, "due_at": due_at, "now": now})
