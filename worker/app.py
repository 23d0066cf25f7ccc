"""The Celery application: `celery -A worker.app …`.

Why each setting is what it is: docs/architecture.md, "Celery and Redis".
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from contextlib import closing
from functools import cached_property
from typing import Any, NoReturn

import billiard.common
import celery.worker.request
import click
from celery import Celery, Task, signals

from worker.errors import ConfigurationError, Unavailable
from worker.integrations import registry
from worker.process.logger import Logger
from worker.process.redis_names import QUEUES
from worker.runtime import Runtime, close_runtime, forget_runtime, tune_interpreter
from worker.services import keys, limits
from worker.services.refresh import spool
from worker.settings import FlowerSettings, QueueSettings, get_settings, load
from worker.settings.celery import celery_settings, rabbitmq
from worker.telemetry import metric_files, metrics, tracing
from worker.telemetry.log import configure_logging, write_json_line

log = Logger(__name__)

_BROKER_SECONDS = 5.0

# On SIGTERM a worker begins its soft shutdown, so that a deploy loses no work. The processes that start workers should
# set this variable in their environment. When a worker is started with `celery -A worker.app worker`, it is set here.
# `billiard.common` and one Celery module have read it by then, so they get the new value below. All other modules are
# imported later.
os.environ.setdefault("REMAP_SIGTERM", "SIGQUIT")
if billiard.common.REMAP_SIGTERM is None:
    importlib.reload(billiard.common)
    celery.worker.request.TERM_SIGNAME = billiard.common.TERM_SIGNAME


def _refuse(error: ConfigurationError) -> NoReturn:
    """Prints the error and ends the process. A signal's receiver must do this: Celery only logs other exceptions."""
    sys.stderr.write(f"error: {error}\n")
    raise SystemExit(error.exit_code) from None


class _Application(Celery):  # type: ignore[misc, unused-ignore]
    amqp_cls = "worker.consumer:Amqp"

    @cached_property
    def Beat(self) -> type:  # noqa: N802 - Celery's own name
        """The program `beat`."""
        beat: type = self.subclass_with_self("worker.beat:Beat")
        return beat


app = _Application("dashtam")
# Beat and Flower have neither keys nor a database; workers read the rest when they start.
app.add_defaults(lambda: celery_settings(load(QueueSettings)))


@signals.setup_logging.connect  # type: ignore[untyped-decorator, unused-ignore]
def _setup_logging(**_: Any) -> None:
    configure_logging(load(QueueSettings))


@signals.celeryd_init.connect  # type: ignore[untyped-decorator, unused-ignore]
def _say_nothing_in_plain_text(instance: Any, **_: Any) -> None:
    if load(QueueSettings).log_format == "json":
        instance.quiet = True  # no banner
        program: Any = importlib.import_module("celery.apps.worker")  # only after REMAP_SIGTERM is set, see above
        program.safe_say = write_json_line


_SHARED = ("worker.services.availability.quotas", "limits.storage", "worker.integrations.kit.aiohttp_wire", "jwt")
"""Modules that a worker imports before it forks, so that its children share them and no task waits for the import."""


@signals.import_modules.connect  # type: ignore[untyped-decorator, unused-ignore]
def _guard_flower(**_: Any) -> None:
    if _command() == "flower":
        from worker.telemetry.flower import refuse_without_authentication

        refuse_without_authentication()


def _command() -> str | None:
    """Which command of `celery` this process runs, for example `worker`."""
    context = click.get_current_context(silent=True)
    root = context.find_root() if context is not None else None
    return root.invoked_subcommand if root is not None and root.command.name == "celery" else None


@signals.worker_init.connect  # type: ignore[untyped-decorator, unused-ignore]
def _share_counts(**_: Any) -> None:
    metric_files.share_with_exporter(load(QueueSettings).home)


@signals.worker_init.connect  # type: ignore[untyped-decorator, unused-ignore]
@signals.beat_init.connect  # type: ignore[untyped-decorator, unused-ignore]
def _require_queues(**_: Any) -> None:
    """Refuses to start a worker or beat whose RabbitMQ cannot have the queues. One that is away is waited for."""
    broker = rabbitmq(load(QueueSettings), seconds=_BROKER_SECONDS)
    try:
        if broker is not None:
            broker.require_queues()
    except ConfigurationError as error:
        _refuse(error)
    except Unavailable as error:
        log.warning("broker_away", error=str(error), next="waits for it")


@signals.worker_init.connect  # type: ignore[untyped-decorator, unused-ignore]
def _require_keys(**_: Any) -> None:
    """Refuses to start a worker whose integrations are not installed or that lacks a key of the stored tokens.

    The keys cannot be checked while Postgres is out of reach; the worker then starts with a warning.
    """
    try:
        registry.require(get_settings().enabled_integrations)
        for slow in _SHARED:
            importlib.import_module(slow)
        tracing.require(get_settings())
        with closing(Runtime(get_settings())) as runtime:  # closed again: the forked children must not inherit it
            runtime.run(limits.require_in_effect(runtime))
            runtime.run(keys.require_configured(runtime))
            runtime.run(spool.settle(runtime))
    except ConfigurationError as error:
        _refuse(error)
    except Unavailable as error:
        if error.server == "pooler":
            _refuse(ConfigurationError(f"DATABASE_URL: {error}; pending work is kept. Set DATABASE_POOLER=true"))
        log.warning("keys_unchecked", error=str(error), next="a token whose key is missing waits, and is logged")


@signals.beat_init.connect  # type: ignore[untyped-decorator, unused-ignore]
def _count_ticks(**_: Any) -> None:
    _share_counts()

    def count_tick(sender: str, **_: Any) -> None:
        metrics.observe_beat(sender)

    signals.after_task_publish.connect(count_tick, weak=False)


@signals.worker_process_init.connect  # type: ignore[untyped-decorator, unused-ignore]
def _after_fork(**_: Any) -> None:
    forget_runtime()
    tune_interpreter()
    # A process that ran before this one may have left its metric files behind.
    metric_files.fold_dead(metric_files.directory(get_settings().home))
    tracing.begin(get_settings())


@signals.worker_process_shutdown.connect  # type: ignore[untyped-decorator, unused-ignore]
def _before_exit(**_: Any) -> None:
    close_runtime()
    tracing.end()


@signals.before_task_publish.connect  # type: ignore[untyped-decorator, unused-ignore]
def _stamp(headers: dict[str, Any], **_: Any) -> None:
    headers["published_at"] = time.time()


@signals.task_prerun.connect  # type: ignore[untyped-decorator, unused-ignore]
def _task_begins(task: Task, **_: Any) -> None:
    request = task.request
    request.begun = time.monotonic()
    queue = (request.delivery_info or {}).get("routing_key")
    if queue is not None and queue in QUEUES and request.get("published_at"):
        metrics.observe_queue_delay(queue, time.time() - request.published_at)


@signals.task_postrun.connect  # type: ignore[untyped-decorator, unused-ignore]
def _task_ended(task: Task, state: str | None, **_: Any) -> None:
    begun = task.request.get("begun")
    if begun is not None:
        metrics.observe_task(task.name, seconds=time.monotonic() - begun, failed=state == "FAILURE")


def _begin(command: str) -> None:
    """Reads the settings before a `celery` command. An error in them is printed in one line and ends the command."""
    try:
        settings: FlowerSettings | QueueSettings = load(FlowerSettings) if command == "flower" else load(QueueSettings)
        if command in _PROGRAMS:
            configure_logging(settings)  # so that Celery's first lines have the log's format, too
        if isinstance(settings, FlowerSettings):
            from worker.telemetry.flower import configure

            configure(app, settings)
    except ConfigurationError as error:
        _refuse(error)


_PROGRAMS = ("worker", "beat", "flower")
_begun = _command()
if _begun is not None and "--help" not in sys.argv:
    _begin(_begun)
