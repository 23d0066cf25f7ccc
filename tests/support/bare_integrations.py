"""Integrations that answer nothing, for tests of what surrounds them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from tests.support.providers import REFRESHED_KEY
from worker.integrations.kit.base import Quota
from worker.integrations.kit.integration import Integration
from worker.integrations.kit.link_kinds import OAUTH


async def _aclose() -> None:
    return None


def bare_integration(
    key: str = REFRESHED_KEY, *, quotas: tuple[Quota, ...] = (), name: str = "Made-up Bank"
) -> Integration:
    """An integration of which only the class attributes are real."""
    attributes: dict[str, Any] = {
        "key": key,
        "name": name,
        "link_kind": OAUTH,
        "refresh_policy": None,
        "quotas": quotas,
        "mapping_version": 1,
        "memory_feeds": frozenset(),
        "hooks": None,
        "can_check": False,
        "aclose": _aclose,
    }
    return cast("Integration", SimpleNamespace(**attributes))
