"""Repair commands, ready to be pasted into a shell: names and addresses in them are quoted."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from urllib.parse import urlsplit

from worker.devstack.demo import is_demo_running, was_demo
from worker.models.fleet import ProviderRow
from worker.process import redis_address
from worker.process.redis_names import QUEUES
from worker.settings import Settings
from worker.settings.addresses import is_loopback, postgres_hosts

MIGRATE = "run: dashtam migrate"
GRANT = "with the role that owns the tables in MIGRATE_DATABASE_URL, run: dashtam database roles"
PROMOTE = "promote the standby that is to be the primary: SELECT pg_promote(); or correct DATABASE_URL"
USE_POOLER = "set DATABASE_POOLER=true, and MIGRATE_DATABASE_URL to Postgres itself; then: dashtam doctor"
_OTHER_MENDS = {"schema": MIGRATE, "roles": GRANT, "standby": PROMOTE, "pooler": USE_POOLER}
_PORTS = {"": 5432, "amqp": 5672, "amqps": 5671}
_SERVERS = {
    "postgres": ("Postgres", "DATABASE_URL"),
    "redis": ("Redis", "REDIS_URL"),
    "rabbitmq": ("RabbitMQ", "BROKER_URL"),
}


def link_again(provider: ProviderRow) -> str:
    """The command that renews the consent of one login."""
    user = shlex.quote(provider.user or str(provider.user_id))
    return f"dashtam link {provider.provider_key} --user {user} --alias {shlex.quote(provider.alias)}"


def less_often(name: str) -> str:
    """The command that sets the sync of one login to four times a day."""
    return f"dashtam providers interval {shlex.quote(name)} --seconds 21600"


def start_server(server: str, settings: Settings, *, silent: bool = False) -> str:
    """The command that starts Postgres, Redis or RabbitMQ.

    Args:
        server: `postgres`, `redis` or `rabbitmq`; `schema` for tables or `roles` for rights that are missing; `standby`
            for one that takes no writes, or `pooler` for one that refuses or drops our options.
        settings: have the server's address, and the home directory.
        silent: the server runs but does not answer, so it must be stopped first.
    """
    if server in _OTHER_MENDS:
        return _OTHER_MENDS[server]
    name, variable = _SERVERS[server]
    start = "restart" if silent else "start"
    url = _url(server, settings)
    if _is_private(server, settings, url):
        return f"{start} it: {_devstack(settings, silent=silent)}"
    hosts = _places(url)
    if hosts[0][0] == server:  # the host is the name of the service in docker-compose.yml
        return f"{start} it: docker-compose {'restart' if silent else 'up -d'} {server}"
    if url.startswith("sentinel"):
        address = redis_address.parse(url)
        return f"see whom they name: redis-cli -h {hosts[0][0]} -p {hosts[0][1]} SENTINEL MASTER {address.master}"
    where = ", ".join(f"{host}:{port}" for host, port in hosts)
    return f"{start} {name} at {where}, or correct {variable}; then: dashtam doctor"


def _url(server: str, settings: Settings) -> str:
    if server == "rabbitmq" and settings.broker_url is not None:
        return settings.broker_url.get_secret_value()
    return (settings.database_url if server == "postgres" else settings.redis_url).get_secret_value()


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
    if _places(settings.redis_url.get_secret_value())[0][0] == "redis":
        return "start what is down: docker-compose up -d"
    return None


def _devstack(settings: Settings, *, silent: bool) -> str:
    if was_demo(settings.home) and not is_demo_running(settings.home):
        return "dashtam devstack down && dashtam run" if silent else "dashtam run"
    return "dashtam devstack down && dashtam devstack up" if silent else "dashtam devstack up"


def _is_private(server: str, settings: Settings, url: str) -> bool:
    """Whether this is the address of the devstack's own server in the home directory, running or not."""
    from worker.devstack.stack import Devstack  # only a command that names a server takes it

    port = _places(url)[0][1]
    if not is_loopback(url) or not settings.home.is_dir():
        return False
    return Devstack(settings.home, durable=True, environ={}).ports().get(server) == port


def _places(url: str) -> list[tuple[str, int]]:
    """Hosts and ports of an address of any kind; at least one."""
    scheme = url.partition("://")[0]
    if scheme in redis_address.SCHEMES:
        return list(redis_address.parse(url).hosts)
    port = _PORTS.get(scheme, _PORTS[""])
    if scheme.startswith("amqp"):
        parts = [urlsplit(one) for one in url.split(";")]
        return [(part.hostname or "127.0.0.1", part.port or _PORTS[part.scheme]) for part in parts]
    return [(host, number or port) for host, number in postgres_hosts(url)] or [("", port)]
