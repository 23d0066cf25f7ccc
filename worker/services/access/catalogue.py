"""The list of integrations that logins can be linked with."""

from __future__ import annotations

from dataclasses import dataclass

from worker.errors import NotFound
from worker.integrations.registry import REGISTRY
from worker.services.context import Context


@dataclass(frozen=True, slots=True)
class ProviderType:
    """One integration.

    Attributes:
        provider_type: `brokerage`, `bank`, `aggregator`, … as the integration states it.
        icon_url: None for all integrations in this repository.
        is_configured: whether logins can be linked here.
        supported_features: the nouns that it syncs.
    """

    key: str
    name: str
    provider_type: str
    description: str
    icon_url: str | None
    is_configured: bool
    supported_features: list[str]


def types(runtime: Context, *, configured: bool | None) -> list[ProviderType]:
    """Every installed integration, ordered by key; `configured` selects those that are configured, or those not."""
    found = [_of(runtime, key) for key in sorted(REGISTRY)]
    return [one for one in found if configured is None or one.is_configured is configured]


def type_of(runtime: Context, key: str) -> ProviderType:
    """One integration. Raises `NotFound` if there is none with this key."""
    if key not in REGISTRY:
        raise NotFound(f"no integration has this key; there are {', '.join(sorted(REGISTRY))}")
    return _of(runtime, key)


def _of(runtime: Context, key: str) -> ProviderType:
    integration = REGISTRY[key]
    description = integration.description or f"{integration.name}: {integration.link_kind.title}"
    enabled = key in runtime.integrations
    return ProviderType(
        key, integration.name, integration.provider_type, description, None, enabled, list(integration.nouns)
    )
