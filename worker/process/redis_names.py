"""Names in Redis that several programs use: the queues, and keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

QUEUES: Mapping[str, str] = {
    "refresh": "worker.tasks.tokens",
    "sync": "worker.tasks.accounts",
    "upkeep": "worker.tasks.upkeep",
}
"""Each queue, and the module whose tasks are sent to it."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """What a broker holds.

    Attributes:
        waiting: number of messages that no worker has taken, by queue.
        in_flight: number of messages that workers have taken and not yet acknowledged; None if the broker does not say.
    """

    waiting: dict[str, int]
    in_flight: int | None


JOURNAL = "dashtam:journal"
"""The hash with the answers that could not be stored in Postgres yet."""

UNSENT = "dashtam:unsent"
"""The hash with attempts that may be recorded in Postgres but were certainly never sent."""

QUOTA = "dashtam:quota"
"""The prefix of the keys of the windows that count calls."""


def hold(provider_key: str) -> str:
    """The key that exists while calls to an integration are paused, because its provider asked for this."""
    return f"dashtam:hold:{provider_key}"
