"""Finds the integrations: our own in their folders, plug-ins by the entry-point group `dashtam.integrations`.

Integrations are imported only when they are needed. One that cannot be used is left out, and `faults()` says why, so
that a package that cannot be imported does not stop the others.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from worker.errors import ConfigurationError
from worker.settings.built_in import built_in_integrations
from worker.telemetry.redaction import redact

if TYPE_CHECKING:
    import httpx

    from worker.integrations.kit.http import Gate
    from worker.integrations.kit.integration import Integration
    from worker.settings import Settings

GROUP = "dashtam.integrations"
OURS = "dashtam-worker"


@dataclass(frozen=True, slots=True)
class Fault:
    """An integration that is installed and cannot be used.

    Attributes:
        key: its key.
        package: the distribution that contains it.
        reason: why it cannot be used; contains no secrets.
    """

    key: str
    package: str
    reason: str


@dataclass(frozen=True, slots=True)
class _Found:
    integrations: dict[str, type[Integration]] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


class _Unusable(Exception):  # noqa: N818 - never leaves this module
    """An integration cannot be used; the text says why."""


class _Registry(Mapping[str, "type[Integration]"]):
    """Every usable integration by key. They are searched for at the first access."""

    def __getitem__(self, key: str) -> type[Integration]:
        return _found().integrations[key]

    def __iter__(self) -> Iterator[str]:
        return iter(_found().integrations)

    def __len__(self) -> int:
        return len(_found().integrations)


REGISTRY: Mapping[str, type[Integration]] = _Registry()


def faults() -> tuple[Fault, ...]:
    """The integrations that are installed and cannot be used."""
    return tuple(_found().faults)


def package_of(key: str) -> str:
    """The distribution that contains a usable integration."""
    return _found().packages[key]


def installed_keys() -> list[str]:
    """Keys of all installed integrations, usable or not. Nothing is imported for this."""
    return sorted({*built_in_integrations(), *(point.name for point in entry_points(group=GROUP))})


def forget_found() -> None:
    """Forgets what was found, so that the next access searches again (after installing a package, and in tests)."""
    _found.cache_clear()


@cache
def _found() -> _Found:
    found = _Found()
    for key in built_in_integrations():
        _take(found, key, OURS, partial(_load_ours, key))
    for point in sorted(entry_points(group=GROUP), key=lambda point: (_package(point), point.name)):
        _take(found, point.name, _package(point), point.load)
    return found


def _take(found: _Found, key: str, package: str, load: Callable[[], object]) -> None:
    try:
        if key in found.integrations:
            raise _Unusable(f"the key {key} is taken by {found.packages[key]}")
        found.integrations[key] = _usable(key, _loaded(load))
        found.packages[key] = package
    except _Unusable as error:
        found.faults.append(Fault(key, package, str(error)))


def _loaded(load: Callable[[], object]) -> object:
    try:
        return load()
    except _Unusable:
        raise
    except (Exception, SystemExit) as error:  # a plug-in's code may raise anything while it is imported
        first_line = redact(str(error)).partition("\n")[0]
        raise _Unusable(f"it does not import: {type(error).__name__}: {first_line}") from None


def _usable(key: str, given: object) -> type[Integration]:
    from worker.integrations.kit.integration import Integration
    from worker.integrations.kit.link_kinds import LinkKind
    from worker.integrations.kit.required import missing_of

    if not (inspect.isclass(given) and issubclass(given, Integration)):
        raise _Unusable(f"it names no class derived from {Integration.__module__}.{Integration.__name__}")
    if lacks := missing_of(given):
        raise _Unusable(f"{given.__name__} lacks {', '.join(lacks)}")
    if given.key != key:
        raise _Unusable(f"{given.__name__} has the key {given.key!r} and is registered as {key!r}")
    if not isinstance(given.link_kind, LinkKind):
        raise _Unusable(f"the link_kind of {given.__name__} is none of worker.integrations.kit.link_kinds")
    return given


def _load_ours(key: str) -> type[Integration]:
    """The integration in one of our folders. The package imports nothing, so that a stand-in can be loaded alone."""
    from worker.integrations.kit.integration import Integration

    module = importlib.import_module(f"worker.integrations.{key}.integration")
    for value in vars(module).values():
        if inspect.isclass(value) and issubclass(value, Integration) and value.__module__ == module.__name__:
            return value
    raise _Unusable(f"{module.__name__} defines no class derived from Integration")


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value.partition(":")[0]


def require(keys: Iterable[str]) -> dict[str, type[Integration]]:
    """The named integrations, in this order.

    Raises:
        ConfigurationError: a key is unknown, or its package cannot be used; the text says which package and why.
    """
    wanted = tuple(keys)
    broken = {fault.key: fault for fault in faults()}
    for key in wanted:
        if key not in REGISTRY and key in broken:
            raise ConfigurationError(
                f"INTEGRATIONS: {key} cannot be used: {broken[key].package}: {broken[key].reason}. "
                f"Repair or update that package, or take {key} out of INTEGRATIONS"
            )
    unknown = sorted(set(wanted) - REGISTRY.keys())
    if unknown:
        raise ConfigurationError(f"INTEGRATIONS: unknown {', '.join(unknown)}; known are {', '.join(REGISTRY)}")
    return {key: REGISTRY[key] for key in wanted}


def build_integrations(
    keys: Iterable[str],
    settings: Settings,
    gate: Gate | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
) -> dict[str, Integration]:
    """Builds the named integrations, each with its own settings from the environment and its own connections.

    Args:
        keys: provider keys.
        settings: deadlines and limits of calls.
        gate: our own budget of calls.
        transport: replaces the network in tests.

    Raises:
        ConfigurationError: a key is unknown, its package cannot be used, or a setting of an integration is wrong.
    """
    built: dict[str, Integration] = {}
    for key, integration in require(keys).items():
        built[key] = integration.build(
            total_seconds=settings.http_total_seconds,
            max_bytes=settings.http_max_bytes,
            gate=gate,
            transport=transport,
        )
        built[key].hook_url = settings.hook_url(key)
    return built
