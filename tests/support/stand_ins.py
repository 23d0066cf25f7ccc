"""Integrations that answer nothing, for tests of what surrounds them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from worker.integrations.kit.base import Integration, Quota


async def _aclose() -> None:
    return None


def stand_in(key: str = "schwab", *, quotas: tuple[Quota, ...] = (), name: str = "Charles Schwab") -> Integration:
    """An integration of which only the class attributes are real."""
    attributes: dict[str, Any] = {
        "key": key,
        "name": name,
        "link_kind": "oauth",
        "refresh_policy": None,
        "quotas": quotas,
        "mapping_version": 1,
        "aclose": _aclose,
    }
    return cast("Integration", SimpleNamespace(**attributes))
