"""How Flower runs here: behind a password, on loopback, looking and not touching, showing ids and no other arguments.

`flowerconfig.py` takes its options from `flower_options` and calls `shield`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from flower.events import Events
from flower.views.monitor import Metrics
from tornado.options import options as running_options
from tornado.web import authenticated

from worker.errors import ConfigurationError
from worker.settings import FlowerSettings, Settings
from worker.telemetry.redaction import redact

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MAX_IDS = 5
_MAX_TEXT = 2000
_SAVE_EVERY_MS = 60_000


def flower_options(settings: FlowerSettings | Settings) -> dict[str, Any]:
    """Options by Flower's own names.

    Raises:
        ConfigurationError: there is no password; Flower must not start.
    """
    if settings.flower_password is None:
        raise ConfigurationError("FLOWER_PASSWORD: is required, Flower does not start without; or FLOWER_PASSWORD_FILE")
    state = settings.home / "flower"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    return {
        "address": settings.flower_address,
        "port": settings.flower_port,
        "basic_auth": [f"{settings.flower_user}:{settings.flower_password.get_secret_value()}"],
        "read_only": not settings.flower_allow_triggers,
        "enable_events": True,
        "natural_time": True,
        "tasks_columns": "name,uuid,state,args,received,runtime,worker",
        "persistent": True,
        "db": str(state / "state"),
        "state_save_interval": _SAVE_EVERY_MS,
        "max_tasks": 10_000,
        "purge_offline_workers": 3600,
    }


def ids_only(event: dict[str, Any]) -> dict[str, Any]:
    """An event whose arguments are reduced to the ids in them, and whose texts are redacted."""
    clean = dict(event)
    for name in ("args", "kwargs"):
        if name in clean:
            clean[name] = _ids_of(str(clean[name]))
    for name in ("result", "exception", "traceback"):
        if clean.get(name):
            clean[name] = redact(str(clean[name])[:_MAX_TEXT])
    return clean


def _ids_of(arguments: str) -> str:
    ids = list(dict.fromkeys(_ID.findall(arguments)))
    more = f" and {len(ids) - _MAX_IDS} more" if len(ids) > _MAX_IDS else ""
    return ", ".join(ids[:_MAX_IDS]) + more


def shield() -> None:
    """Lets in only what may be shown: pages, API answers and the saved state all come from these events.

    Flower's `format_task` would reach the pages alone. Its metrics ask for the password too.
    """
    if not hasattr(Events.on_event, "__wrapped__"):
        Events.on_event = _cleaned(Events.on_event)
        Metrics.get = authenticated(Metrics.get)


def _cleaned(on_event: Callable[[Events, dict[str, Any]], None]) -> Callable[[Events, dict[str, Any]], None]:
    @wraps(on_event)
    def on_clean_event(self: Events, event: dict[str, Any]) -> None:
        on_event(self, ids_only(event))

    return on_clean_event


def refuse_without_authentication() -> None:
    """For a Flower command that found no `flowerconfig.py`: Flower itself would serve everybody.

    Raises:
        SystemExit: with the reason.
    """
    if not running_options.basic_auth:
        raise SystemExit("Flower does not start without authentication: use --conf=flowerconfig.py of this project")
