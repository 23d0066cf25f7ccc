"""Every integration, one line each."""

from __future__ import annotations

from collections.abc import Iterable

import httpx

from worker.errors import ConfigurationError
from worker.integrations.kit.base import Integration
from worker.integrations.kit.http import Gate
from worker.integrations.plaid import Plaid
from worker.integrations.schwab import Schwab
from worker.settings import Settings

REGISTRY: dict[str, type[Schwab | Plaid]] = {
    "plaid": Plaid,
    "schwab": Schwab,
}


def build_integrations(
    keys: Iterable[str],
    settings: Settings,
    gate: Gate | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> dict[str, Integration]:
    """The named integrations, each with its own settings from the environment and its own connections.

    Args:
        keys: provider keys.
        settings: deadlines and limits of calls.
        gate: our own budget of calls.
        transport: for tests.

    Raises:
        ConfigurationError: an unknown key, or a setting of an integration.
    """
    wanted = tuple(keys)
    unknown = sorted(set(wanted) - REGISTRY.keys())
    if unknown:
        raise ConfigurationError(f"INTEGRATIONS: unknown {', '.join(unknown)}; known are {', '.join(REGISTRY)}")
    return {
        key: REGISTRY[key].build(
            total_seconds=settings.http_total_seconds,
            max_bytes=settings.http_max_bytes,
            gate=gate,
            transport=transport,
        )
        for key in wanted
    }
