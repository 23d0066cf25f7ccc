"""Repair commands, ready to be pasted into a shell: names and addresses in them are quoted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from urllib.parse import urlsplit

from worker.devstack.demo import is_demo_running, was_demo
from worker.models.fleet import ProviderRow
from worker.process.redis_names import QUEUES
from worker.settings import Settings
from worker.settings.addresses import is_loopback

MIGRATE = "run: dashtam migrate"
_SERVERS = {"postgres": ("Postgres", "DATABASE_URL"), "redis": ("Redis", "REDIS_URL")}


def link_again(provider: ProviderRow) -> str:
    """The command that renews the consent of one login."""
    user = shlex.quote(provider.user or str(provider.user_id))
    return f"dashtam link {provider.provider_key} --user {user} --alias {shlex.quote(provider.alias)}"


def less_often(name: str) -> str:
    """The command that sets the sync of one login to four times a day."""
    return f"dashtam providers interval {shlex.quote(name)} --seconds 21600"


def start_server(server: str, settings: Settings, *, silent: bool = False) -> str:
    """The command that starts Postgres or Redis.

    Args:
        server: `postgres` or `redis`, or `schema` for the tables.
        settings: have the server's address, and the home directory.
        silent: the server runs but does not answer, so it must be stopped first.
    """
    if server == "schema":
        return MIGRATE
    name, variable = _SERVERS[server]
    url = (settings.database_url if server == "postgres" else settings.redis_url).get_secret_value()
    if _is_private(server, settings, url):
        return f"{'restart' if silent else 'start'} it: {_devstack(settings, silent=silent)}"
    host, port = _place(url)
    if host == server:  # the host is the name of the service in docker-compose.yml
        return f"{'restart' if silent else 'start'} it: docker-compose {'restart' if silent else 'up -d'} {server}"
    return f"{'restart' if silent else 'start'} {name} at {host}:{port}, or correct {variable}; then: dashtam doctor"


def start_workers(settings: Settings, queues: Sequence[str] = tuple(QUEUES)) -> str:
    """The command that starts workers of these queues."""
    if together := _started_together(settings):
        return together
    name = queues[0] if len(queues) == 1 else "all"
    return f"start one: celery -A worker.app worker --queues {','.join(queues)} --hostname {name}@%h"


def start_beat(settings: Settings) -> str:
    """The command that starts beat."""
    return _started_together(settings) or "start it: celery -A worker.app beat"


def _started_together(settings: Settings) -> str | None:
    """The one command that starts everything, where there is one."""
    if _is_private("postgres", settings, settings.database_url.get_secret_value()) and was_demo(settings.home):
        if is_demo_running(settings.home):
            return "stop the running `dashtam run` with Ctrl-C, then: dashtam run"
        return "start everything: dashtam run"
    if _place(settings.redis_url.get_secret_value())[0] == "redis":
        return "start what is down: docker-compose up -d"
    return None


def _devstack(settings: Settings, *, silent: bool) -> str:
    if was_demo(settings.home) and not is_demo_running(settings.home):
        return "dashtam devstack down && dashtam run" if silent else "dashtam run"
    return "dashtam devstack down && dashtam devstack up" if silent else "dashtam devstack up"


def _is_private(server: str, settings: Settings, url: str) -> bool:
    """Whether this is the address of the devstack's own server in the home directory, running or not."""
    from worker.devstack.stack import Devstack  # only a command that names a server takes it

    _, port = _place(url)
    if not is_loopback(url) or not settings.home.is_dir():
        return False
    return Devstack(settings.home, durable=True, environ={}).ports().get(server) == port


def _place(url: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port
    except ValueError:  # several hosts in one address, which libpq allows
        return "", None
