"""Names in Redis that several programs use: the queues, and keys."""

from __future__ import annotations

from collections.abc import Mapping

QUEUES: Mapping[str, str] = {
    "refresh": "worker.tasks.tokens",
    "sync": "worker.tasks.accounts",
    "upkeep": "worker.tasks.upkeep",
}
"""Each queue, and the module whose tasks are sent to it."""

JOURNAL = "dashtam:journal"
"""The hash with the answers that could not be stored in Postgres yet."""

UNSENT = "dashtam:unsent"
"""The hash with attempts that may be recorded in Postgres but were certainly never sent."""

QUOTA = "dashtam:quota"
"""The prefix of the keys of the windows that count calls."""


def hold(provider_key: str) -> str:
    """The key that exists while calls to an integration are paused, because its provider asked for this."""
    return f"dashtam:hold:{provider_key}"
