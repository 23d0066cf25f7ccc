"""`dashtam explain`: says why a refresh or a sync did or did not happen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType

from worker.cli.ask import ProviderArgument, ask
from worker.cli.output import AsJson, plain, show

if TYPE_CHECKING:
    from worker.services.explain import Explanation


def explain_(provider: ProviderArgument, as_json: AsJson = False) -> None:
    """Say why a refresh or a sync of a provider did or did not happen, what is next, and who must act.

    [bold]Example[/]

    dashtam explain "Schwab one"
    """
    from worker.services.explain import explain_provider
    from worker.tasks import send

    row, told = ask(explain_provider, provider, send)
    data: dict[str, Any] = {"provider": row, "explanation": told}
    show(data, as_json=as_json, render=lambda _: _render(told))


def _render(told: Explanation) -> RenderableType:
    parts = (("status", told.status), ("refresh", told.refresh), ("sync", told.sync), ("to do", told.todo))
    shown = ((title, "\n  ".join(map(plain, sentences))) for title, sentences in parts if sentences)
    return Group(*(f"[bold]{title}[/]\n  {sentences}" for title, sentences in shown))
