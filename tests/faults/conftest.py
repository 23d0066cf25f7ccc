"""One world for each process of the suite; every test begins its own story in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.faults_brokers import BROKER
from tests.support.faults_casts import USUAL, others
from tests.support.faults_world import World

_WORLD = pytest.StashKey[World]()
_RECOVERY, _OUTLASTED = "recovery", "outlasted"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keeps the tests for this BROKER; the others count as deselected."""
    elsewhere = [item for item in items if "tests/faults/" in item.nodeid and BROKER not in _brokers(item)]
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test marked `integrations` is also told of the logins of other integrations, before a release."""
    marker = metafunc.definition.get_closest_marker("integrations")
    if marker is not None and "world" in metafunc.fixturenames:
        casts = [
            pytest.param(cast, id=name, marks=pytest.mark.release) for name, cast in others(**marker.kwargs).items()
        ]
        usual = pytest.param(USUAL, id=pytest.HIDDEN_PARAM)
        metafunc.parametrize("world", [usual, *casts], indirect=True)


def _brokers(item: pytest.Item) -> tuple[str, ...]:
    marker = item.get_closest_marker("brokers")
    return ("redis",) if marker is None else marker.args


@pytest.fixture(scope="session")
def _world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    of_process = tmp_path_factory.getbasetemp()
    of_all = of_process.parent if "PYTEST_XDIST_WORKER" in os.environ else of_process
    with World.session(tmp_path_factory.mktemp("world"), references=of_all / "references") as world:
        yield world


@pytest.fixture
def world(_world: World, request: pytest.FixtureRequest) -> World:
    """Five logins, linked and synced; two workers and beat."""
    request.node.stash[_WORLD] = _world
    _world.begin(members=getattr(request, "param", USUAL))  # a test may name other integrations, as `indirect` does
    return _world


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Adds times of recovery, and the ends of the processes' logs when it failed."""
    world = item.stash.get(_WORLD, None)
    if world is not None and call.when == "call":
        item.user_properties += [(_RECOVERY, f"{seconds:.1f} s  {what}") for what, seconds in world.times]
        item.user_properties += [(_OUTLASTED, str(attempt)) for attempt in world.outlasted]
        world.times.clear()
        world.outlasted.clear()
    report = yield
    if report.failed and world is not None:
        report.sections.append(("logs of the world", world.logs()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How long each recovery took, and what the machine itself was too slow for."""
    told = [
        (name, str(value))
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, value in report.user_properties
    ]
    recoveries = sorted((value for name, value in told if name == _RECOVERY), key=lambda line: -float(line.split()[0]))
    if recoveries:
        terminalreporter.section("from the fault to all due work done")
        for line in recoveries:
            terminalreporter.write_line(line)
        outlasted = sum(name == _OUTLASTED for name, _ in told)
        terminalreporter.write_line(f"{outlasted} calls outlasted their deadline and were repeated, once each")
