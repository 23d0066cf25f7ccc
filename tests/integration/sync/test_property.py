from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.sync.feeds import ModelIntegration
from tests.integration.sync.machine import DRIFTS, SyncMachine
from tests.support.fixtures import MakeRuntime

pytestmark = pytest.mark.deep


@pytest.fixture
def machine(make_runtime: MakeRuntime) -> type[SyncMachine]:
    model = ModelIntegration()

    class Machine(SyncMachine):
        runtime = make_runtime(integrations={"model": model})  # type: ignore[dict-item]
        integration = model

    return Machine


def test_any_sequence_of_changes_and_faults_leaves_tables_equal_to_the_books(machine: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=12, stateful_step_count=12, suppress_health_check=list(HealthCheck)),
    )


@pytest.mark.parametrize("account", ["A", "B"], ids=["of which a row is left", "whose last row goes"])
def test_drift_goes_with_the_figures_that_a_full_sync_forgets(machine: Any, account: str) -> None:
    story = machine()
    story.link(rows_ahead=1)
    for each in ("A", account):
        story.add(account=each, amount="-1.00", pending=False)
    story.sync(page_size=2)
    story.sync(page_size=2)
    story.lose_without_a_word(place=1)
    story.sync(page_size=1)
    assert [(key, stated - stored) for key, stated, stored in story.select(DRIFTS)[0]] == [(account, 1)]

    story.sync_fully()

    assert story.select(DRIFTS) == [[]]
    story.teardown()
