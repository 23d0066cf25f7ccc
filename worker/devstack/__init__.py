"""A private Postgres and Redis for people who have no servers of their own, and the supervisor of `make run`.

`Devstack(home, durable=True).up()` starts the servers and returns their addresses; `session()` runs them for the length
of a `with` block. `Supervisor` keeps a list of processes running and stops them in order.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.devstack.child import ProcessSpec, ProcessState
    from worker.devstack.demo import is_demo_running, only_one, was_demo
    from worker.devstack.errors import DevstackError
    from worker.devstack.home import default_home
    from worker.devstack.stack import Devstack, ServerStatus, Urls
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

_PLACES = {
    "child": ("ProcessSpec", "ProcessState"),
    "demo": ("is_demo_running", "only_one", "was_demo"),
    "errors": ("DevstackError",),
    "home": ("default_home",),
    "stack": ("Devstack", "ServerStatus", "Urls"),
    "supervisor": ("ProcessStatus", "Supervisor"),
    "tether": ("Tether",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    # Every command asks where the home is, and few start a server. So a module is imported when a name of it is used.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
