"""Finds the stand-ins: the module `stand_in` beside each integration, in which `STAND_IN` is the class.

Built-in integrations are folders of `worker/integrations`; plug-ins are found by their entry points. A stand-in is
imported only when it is needed.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec

from worker.sandbox.core import Profile
from worker.settings.built_in import built_in_integrations

GROUP = "dashtam.integrations"


class StandInError(Exception):
    """A stand-in cannot be used; the text says which one and why."""


def find() -> dict[str, str]:
    """The name of each integration's stand-in module, by the integration's key. The module may not exist."""
    found = {key: f"worker.integrations.{key}.stand_in" for key in built_in_integrations()}
    for point in entry_points(group=GROUP):
        found.setdefault(point.name, f"{point.module}.stand_in")
    return found


def stand_in(key: str) -> type[Profile]:
    """The stand-in of one integration.

    Raises:
        KeyError: there is no such integration, or it has no stand-in.
        StandInError: its module cannot be imported, or does not define `STAND_IN`.
    """
    return _imported(key, find()[key])


def _imported(key: str, module: str) -> type[Profile]:
    try:
        if find_spec(module) is None:
            raise KeyError(key)
        found: type[Profile] = import_module(module).STAND_IN
    except KeyError:
        raise
    except Exception as error:  # a plug-in's module may raise anything
        raise StandInError(f"{module} cannot be used: {error}") from error
    return found


def stand_ins() -> tuple[dict[str, type[Profile]], list[str]]:
    """All stand-ins by key, and one sentence for each that cannot be used."""
    usable: dict[str, type[Profile]] = {}
    problems: list[str] = []
    for key, module in find().items():  # once: it reads the entry points of every installed package
        try:
            usable[key] = _imported(key, module)
        except KeyError:
            continue
        except StandInError as error:
            problems.append(str(error))
    return usable, problems


def variables(profile: type[Profile], url: str) -> dict[str, str]:
    """The environment variables that make an integration use its stand-in.

    Args:
        profile: the stand-in.
        url: the address of the sandbox.
    """
    prefix = profile.key.upper()
    given = {f"{prefix}_{name.upper()}": value for name, value in profile.credentials.items()}
    paths = {"base_url": "", **profile.addresses}
    return given | {f"{prefix}_{name.upper()}": f"{url}/{profile.key}{path}" for name, path in paths.items()}
