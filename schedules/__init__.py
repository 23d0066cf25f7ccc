"""The schedule: which task runs when. Data only.

Each entry names its task by a string, so that nothing of the worker is imported here; a test checks that every name is
a registered task. Intervals are in seconds. Every entry expires before its next tick: when ticks have piled up while no
worker ran, one of them does all the work. To add a schedule, add one entry to one of the files beside this one.
"""

from typing import Any

from schedules import accounts, tokens, upkeep

ENTRIES: dict[str, tuple[str, float]] = {**tokens.ENTRIES, **accounts.ENTRIES, **upkeep.ENTRIES}

_EXPIRES = 0.9
"""A tick that no worker has taken is dropped after this share of its interval."""


def tick_seconds(name: str, *, scale: float = 1.0) -> float:
    """Seconds from one tick of this name to the next."""
    return ENTRIES[name][1] * scale


def beat_schedule(*, scale: float = 1.0) -> dict[str, dict[str, Any]]:
    """The schedule in Celery's form, all intervals multiplied by `scale`."""
    return {
        name: {
            "task": task,
            "schedule": tick_seconds(name, scale=scale),
            "options": {"expires": tick_seconds(name, scale=scale) * _EXPIRES},
        }
        for name, (task, _) in ENTRIES.items()
    }
