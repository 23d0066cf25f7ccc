"""A private Postgres and Redis for people who have no servers of their own, and the supervisor of `make run`.

`Devstack(home, durable=True).up()` starts the servers and returns their addresses; `session()` runs them for the length
of a `with` block. `Supervisor` keeps a list of processes running and stops them in order.
"""

from __future__ import annotations

from worker.devstack.child import ProcessSpec, ProcessState
from worker.devstack.demo import is_demo_running, only_one, was_demo
from worker.devstack.errors import DevstackError
from worker.devstack.stack import Devstack, ServerStatus, Urls, default_home
from worker.devstack.supervisor import ProcessStatus, Supervisor
from worker.devstack.tether import Tether

__all__ = [
    "Devstack",
    "DevstackError",
    "ProcessSpec",
    "ProcessState",
    "ProcessStatus",
    "ServerStatus",
    "Supervisor",
    "Tether",
    "Urls",
    "default_home",
    "is_demo_running",
    "only_one",
    "was_demo",
]
