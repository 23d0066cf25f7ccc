"""`dashtam explain`: why a refresh or a sync did or did not happen."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType

from worker.cli.lookup import ProviderArgument, resolve
from worker.cli.output import AsJson, plain, show
from worker.integrations.registry import REGISTRY
from worker.runtime import get_runtime
from worker.services.explain import Explanation, explain, gather


def explain_(provider: ProviderArgument, as_json: AsJson = False) -> None:
    """Say why a refresh or a sync of a provider did or did not happen, what is next, and who must act.

    [bold]Example[/]

    dashtam explain "Schwab one"
    """
    runtime = get_runtime()
    with runtime.transaction() as session:
        row = resolve(session, provider)
        facts = gather(
            session,
            row,
            refreshable=_refreshable(row.provider_key, runtime.settings.enabled_integrations),
            now=datetime.now(UTC),
            run_dead_after=timedelta(seconds=runtime.settings.run_dead_seconds),
        )
    told = explain(facts)
    data: dict[str, Any] = {"provider": row, "explanation": told}
    show(data, as_json=as_json, render=lambda _: _render(told))


def _refreshable(provider_key: str, enabled: Sequence[str]) -> bool | None:
    if provider_key not in enabled or provider_key not in REGISTRY:
        return None
    return REGISTRY[provider_key].refresh_policy is not None


def _render(told: Explanation) -> RenderableType:
    parts = (("status", told.status), ("refresh", told.refresh), ("sync", told.sync), ("to do", told.todo))
    shown = ((title, "\n  ".join(map(plain, sentences))) for title, sentences in parts if sentences)
    return Group(*(f"[bold]{title}[/]\n  {sentences}" for title, sentences in shown))
