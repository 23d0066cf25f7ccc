"""Flower's options: a password, only loopback, no commands to workers, and only the ids of a task's arguments.

`worker.app` calls `configure` whenever `celery -A worker.app flower` starts, so that no configuration file is needed.
Options of the command line come before these.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import wraps
from types import FrameType
from typing import Any

from celery import Celery
from flower import command
from flower.events import Events
from flower.options import options as running_options
from flower.views import BaseHandler
from flower.views.monitor import Metrics
from tornado.web import authenticated

import schedules
from worker.errors import ConfigurationError
from worker.process.ports import require_free
from worker.process.redis_client import connect, lengths_in_redis
from worker.process.redis_names import Lengths
from worker.settings import FlowerSettings, Settings
from worker.settings.celery import rabbitmq
from worker.telemetry.redaction import redact

_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_MAX_IDS = 5
_MAX_TEXT = 2000
_SAVE_EVERY_MS = 60_000
_CONNECTIONS = 32
_BROKER_SECONDS = 2.0
_BEGINNINGS = ("task-sent", "task-received", "task-started")
_TICKS_HELD = 1000


def configure(app: Celery, settings: FlowerSettings) -> None:
    """Makes these options Flower's defaults, in this process.

    Raises:
        ConfigurationError: there is no password, or the port is taken; Flower must not start.
    """
    for name, value in flower_options(settings).items():
        setattr(running_options, name, value)
    require_free("FLOWER_PORT", settings.flower_address, settings.flower_port)
    shield()
    ask_the_broker(settings)
    command.sigterm_handler = stop_in_the_loop
    # Flower sends eight inspections at once, and each needs two connections. With the small pool of the workers, these
    # would wait for each other without end, and Flower would neither show workers nor stop.
    app.conf.broker_pool_limit = _CONNECTIONS


def stop_in_the_loop(signal_number: int, frame: FrameType | None) -> None:
    """Takes the place of Flower's handler of SIGTERM: ends the event loop between two callbacks, or as soon as it runs.

    Flower's own handler raises SystemExit wherever the program is at that moment. If a pool was just starting its first
    thread, it has not noted that thread yet, so nobody tells the thread to end, and Python waits for it without end.
    """
    loop = asyncio.get_event_loop()
    loop.call_soon_threadsafe(loop.stop)


def flower_options(settings: FlowerSettings | Settings) -> dict[str, Any]:
    """The options, by Flower's names for them.

    Raises:
        ConfigurationError: there is no password; Flower must not start.
    """
    if settings.flower_password is None:
        raise ConfigurationError("FLOWER_PASSWORD: is required; or set FLOWER_PASSWORD_FILE")
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


class Ticks:
    """Hides ticks that succeed from Flower: several start every minute, and they would make other tasks hard to find.

    The events of a tick are held back until it ends. If it did not succeed, Flower gets all of them.

    Args:
        names: the tasks that beat sends.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._held: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    def let_through(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """The events to show after this one: none, only this one, or this one and those that were held back."""
        kind, task_id = str(event.get("type", "")), event.get("uuid")
        if not kind.startswith("task-") or task_id is None:
            return [event]
        if kind == "task-succeeded" and self._held.pop(task_id, None) is not None:
            return []
        if kind in _BEGINNINGS and (task_id in self._held or event.get("name") in self._names):
            self._held.setdefault(task_id, []).append(event)
            if len(self._held) > _TICKS_HELD:  # Celery reports no end for ticks that expired
                self._held.popitem(last=False)
            return []
        return [*self._held.pop(task_id, ()), event]


def shield() -> None:
    """Filters the events that Flower receives; its pages, API answers and saved state are all made from them.

    Flower's own `format_task` would change only the pages. After this, Flower's metrics need the password, too.
    """
    if not hasattr(Events.on_event, "__wrapped__"):
        Events.on_event = _cleaned(Events.on_event, Ticks(task for task, _ in schedules.ENTRIES.values()))
        Metrics.get = authenticated(Metrics.get)


def _cleaned(
    on_event: Callable[[Events, dict[str, Any]], None], ticks: Ticks
) -> Callable[[Events, dict[str, Any]], None]:
    @wraps(on_event)
    def on_clean_event(self: Events, event: dict[str, Any]) -> None:
        for shown in ticks.let_through(ids_only(event)):
            on_event(self, shown)

    return on_clean_event


def ask_the_broker(settings: FlowerSettings) -> None:
    """Makes Flower's page of the broker ask for the lengths of the queues as all our programs do.

    Flower itself would ask RabbitMQ's management API, which is often missing, and cannot read several Sentinels.
    """
    broker = rabbitmq(settings, seconds=_BROKER_SECONDS)

    def lengths() -> Lengths:
        if broker is not None:
            return broker.lengths()
        with connect(settings.redis_url.get_secret_value(), seconds=_BROKER_SECONDS, retries=0) as client:
            return lengths_in_redis(client)

    class Queues:
        async def queues(self, names: Iterable[str]) -> list[dict[str, Any]]:
            waiting = (await asyncio.to_thread(lengths)).waiting
            return [{"name": name, "messages": waiting[name], "messages_ready": waiting[name]} for name in waiting]

    BaseHandler.get_broker = lambda _: Queues()


def refuse_without_authentication() -> None:
    """Stops Flower if its command line or configuration file has removed the password: anybody could use it.

    Raises:
        SystemExit: there is no password; the text says what to do.
    """
    if not any(running_options.basic_auth or ()):
        raise SystemExit("error: Flower does not start without a password; remove --basic_auth")
