"""One world for the whole suite; every test begins its own story in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.faults_world import World

_WORLD = pytest.StashKey[World]()


@pytest.fixture(scope="session")
def _world(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[World]:
    with World.session(tmp_path_factory.mktemp("world")) as world:
        pytestconfig.stash[_WORLD] = world
        yield world


@pytest.fixture
def world(_world: World, request: pytest.FixtureRequest) -> World:
    """Five logins, linked and synced; two workers and beat."""
    request.node.stash[_WORLD] = _world
    _world.begin()
    return _world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Adds the ends of the processes' logs to the report of a failed test."""
    report = yield
    if report.failed and _WORLD in item.stash:
        report.sections.append(("logs of the world", item.stash[_WORLD].logs()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """How long each recovery took, and what the machine itself was too slow for."""
    world = config.stash.get(_WORLD, None)
    if world is not None and world.times:
        terminalreporter.section("from the fault to all due work done")
        for what, seconds in sorted(world.times, key=lambda item: -item[1]):
            terminalreporter.write_line(f"{seconds:6.1f} s  {what}")
        terminalreporter.write_line(f"{world.outlasted} calls outlasted their deadline and were repeated, once each")
