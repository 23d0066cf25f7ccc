"""Names in Redis that several programs use: the queues, and the keys of what waits there."""

from __future__ import annotations

from collections.abc import Mapping

QUEUES: Mapping[str, str] = {
    "refresh": "worker.tasks.tokens",
    "sync": "worker.tasks.accounts",
    "upkeep": "worker.tasks.upkeep",
}
"""Each queue, and the module whose tasks go through it."""

JOURNAL = "dashtam:journal"
"""Hash of answers that could not be stored in Postgres yet."""

UNSENT = "dashtam:unsent"
"""Hash of attempts that were perhaps written down and certainly never sent."""

QUOTA = "dashtam:quota"
"""Beginning of the keys of windows that count calls."""


def hold(provider_key: str) -> str:
    """The key that says that an integration has asked for a pause."""
    return f"dashtam:hold:{provider_key}"
