from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.integration.sync.test_property import machine

__all__ = ["machine"]

EXAMPLES = int(os.environ.get("DEEP_EXAMPLES", "500" if os.environ.get("CI") else "3000"))


def test_any_sequence_of_changes_and_faults_leaves_tables_equal_to_the_books(machine: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=15,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
