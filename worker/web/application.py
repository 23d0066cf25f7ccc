"""The FastAPI application: its routes, and the middleware that every request passes first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI

from worker.runtime import Runtime
from worker.services.access.events import Events
from worker.services.access.logins import Totals
from worker.services.fleet.asking import Send
from worker.services.fleet.glance import Lookout, Watchtower
from worker.services.hooks.bell import Bell
from worker.services.refresh import spool
from worker.web import documentation, problems, uploads
from worker.web.middleware import AddressRate, Body, HostCheck, Shield, Slash
from worker.web.rates import Rates
from worker.web.routes import (
    acting,
    apps,
    authorization,
    changes,
    demonstration,
    happenings,
    health,
    hooks,
    imports,
    landing,
    link_sessions,
    linking,
    login,
    outbox,
    provider_types,
    providers,
    reading,
    simplefin,
    static,
    status,
)

ROUTERS = (
    hooks.router,  # the first ones are found fastest, and hooks are the most frequent requests
    health.router,
    documentation.router,
    provider_types.router,
    providers.router,
    authorization.router,
    landing.router,
    link_sessions.router,
    imports.router,
    linking.router,
    demonstration.router,
    acting.router,
    reading.router,
    changes.router,
    simplefin.router,
    apps.router,
    happenings.router,
    outbox.router,
    login.router,
    status.router,
    static.router,
)

_DESCRIPTION = """Linked logins, what was synced of them, and how to ask for more.

Each request carries a key that `dashtam api-keys create --name app` has made: `Authorization: Bearer dashtam_…`. A
user's key sees that user's logins alone, an operator's key sees all. Errors are problem documents (RFC 9457). Amounts
are decimal strings, times are UTC, and each address can be written with or without a slash at its end.
"""


def create_app(runtime: Runtime, *, send: Send, transport: Watchtower) -> FastAPI:
    """Makes the application.

    Args:
        runtime: the process's runtime. Its maker closes it, except for the connections to providers, which belong to
            the server's event loop.
        send: sends a task to the workers.
        transport: asks the broker.
    """
    rates, events, bell = Rates(runtime.settings), Events(runtime), Bell(send)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        settling = asyncio.create_task(spool.keep_settling(runtime))
        yield
        settling.cancel()
        await bell.aclose()
        await events.aclose()
        await rates.aclose()
        await runtime.close_clients()

    app = FastAPI(
        title="Dashtam",
        version=version("dashtam-worker"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's page loads scripts from other hosts; we use `documentation` instead
        redoc_url=None,
        redirect_slashes=False,
        responses=problems.documented(429, 503),
    )
    app.state.lookout, app.state.events = Lookout(runtime, transport), events
    app.state.runtime, app.state.send, app.state.transport, app.state.rates = runtime, send, transport, rates
    app.state.totals, app.state.bell = Totals(), bell
    app.state.uploads = asyncio.Semaphore(uploads.AT_ONCE)
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    _protect(app, runtime, rates)
    _document_problems(app)
    return app


def _protect(app: FastAPI, runtime: Runtime, rates: Rates) -> None:
    settings = runtime.settings
    app.add_middleware(Slash)  # a request passes the last one added first
    app.add_middleware(Body, settings=settings)
    app.add_middleware(AddressRate, settings=settings, rates=rates)
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(Shield, settings=settings)


def _document_problems(app: FastAPI) -> None:
    """Puts our problem document into the OpenAPI document instead of FastAPI's own format for validation errors."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generate()
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Problem"] = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schemas["Problem"].pop("$defs", {})
            for operation in _operations(schema):
                if "422" in operation["responses"]:
                    operation["responses"] |= {"422": problems.documented(422)[422]}
            documentation.complete_examples(schema)
        return app.openapi_schema or schema

    app.openapi = openapi  # type: ignore[method-assign]


def _operations(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for path in schema["paths"].values() for operation in path.values()]
