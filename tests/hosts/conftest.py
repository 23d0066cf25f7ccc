"""One data host and two others for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.hosts import require_namespace
from tests.support.hosts_world import HostsWorld

_WORLD = pytest.StashKey[HostsWorld]()


@pytest.fixture(scope="session")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostsWorld]:
    require_namespace()
    with HostsWorld.on_hosts(tmp_path_factory.mktemp("hosts")) as world:
        yield world


@pytest.fixture
def world(_world: HostsWorld, request: pytest.FixtureRequest) -> HostsWorld:
    """Five logins, linked and synced; on each of two hosts a worker and a beat."""
    request.node.stash[_WORLD] = _world
    _world.all_is_well()
    _world.begin()
    return _world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Adds times of recovery, and the ends of the processes' logs when it failed."""
    world = item.stash.get(_WORLD, None)
    if world is not None and call.when == "call":
        item.user_properties += [("told", f"{seconds:.1f} s  {what}") for what, seconds in world.times]
        world.times.clear()
    report = yield
    if report.failed and world is not None:
        report.sections.append(("logs of the hosts", world.logs()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long each recovery took, and how the hosts shared their work."""
    terminalreporter.section("from the fault to all due work done")
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "told" and report.when == "call":
                    terminalreporter.write_line(str(value))
