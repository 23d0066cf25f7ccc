from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.sync.test_property import machine

__all__ = ["machine"]

EXAMPLES = int(os.environ.get("DEEP_EXAMPLES", "500"))
# Several processes share the work, and each part begins with empty tables.
PARTS = 10


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_any_sequence_of_changes_and_faults_leaves_tables_equal_to_the_books(machine: Any, part: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=-(-EXAMPLES // PARTS),
            stateful_step_count=15,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
